// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"container/heap"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// sampled is how many blocks are kept in mind of all that were read, and recent how many
	// of those that were read last. They are what the error depends on: see the test.
	sampled = 16 << 10
	recent  = 8 << 10

	// hashBits is how many bits of a block's hash say whether it is in the sample.
	hashBits = 40

	// perOctave is how many distances are told apart up to the next twice as long one.
	perOctave = 16

	// longestRead is the most that the kernel reads at once: MAX_RW_COUNT.
	longestRead = 1<<31 - 4096
)

// Reuse shows how soon data is read again, and what share of the reads a cache would have
// served by its size, if it had kept what was read last (LRU).
//
// For small caches that is exact. For larger ones it looks at a sample of the blocks, spread
// by their hash, which becomes sparser as there are more of them: SHARDS, by Waldspurger et
// al. (FAST '15), with a fixed size. Without the exact part, a few blocks that are read very
// often would decide by whether they are in the sample.
type Reuse struct {
	t     timeline
	block uint64 // bytes
	bytes uint64
	all   uint64 // reads of blocks

	last stack // the blocks that were read last
	near reads // reads of those

	threshold uint64 // blocks are in the sample whose hash is below
	sample    stack
	largest   hashHeap // of the sample, the first has the largest hash
	far       reads    // reads of blocks in the sample that are not among the last, as of threshold
	first     float64  // reads of blocks that were in neither, as of threshold
}

// reads counts reads by how long ago the block was read before.
type reads struct {
	distances map[int]float64 // by bucket
	times     map[int]float64 // log2 of nanoseconds, doubled
}

func newReads() reads { return reads{make(map[int]float64), make(map[int]float64)} }

func (r *reads) add(distance float64, from, to uint64) {
	r.distances[bucket(distance)]++
	if to <= from {
		to = from + 1
	}
	r.times[int(2*math.Log2(float64(to-from)))]++
}

func (r *reads) scale(part float64) {
	for b := range r.distances {
		r.distances[b] *= part
	}
	for b := range r.times {
		r.times[b] *= part
	}
}

// blockKey is a block of a file.
type blockKey struct{ ino, number uint64 }

// block is one that is kept in mind.
type block struct {
	key   blockKey
	hash  uint64
	place int    // in the stack
	time  uint64 // when it was read last
}

// NewReuse makes such a picture. A cache is taken to keep blocks of so many bytes, above 0.
func NewReuse(block uint64) *Reuse {
	return &Reuse{
		block: block, threshold: 1 << hashBits, last: newStack(recent), near: newReads(), sample: newStack(sampled), far: newReads(),
	}
}

// Add is [Picture.Add].
func (u *Reuse) Add(ev notify.Event) {
	u.t.add(ev)
	r, ok := ev.(*notify.Record)
	if !ok || r.Type != notify.TypeRead || r.Length == 0 {
		return
	}
	u.bytes += r.Length
	first := r.Offset / u.block
	last := first + (r.Offset%u.block+min(r.Length, longestRead)-1)/u.block
	for n := first; n <= last; n++ {
		u.read(blockKey{r.Ino, n}, r.TimeNS)
		if n == math.MaxUint64 {
			break
		}
	}
}

// mix spreads the bits of a number (Stafford's thirteenth variant).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (k blockKey) hash() uint64 {
	return mix(mix(k.ino)+k.number*0x9e3779b97f4a7c15) >> (64 - hashBits)
}

// read takes a read of a block into account.
func (u *Reuse) read(key blockKey, at uint64) {
	u.all++
	b := u.last.blocks[key]
	known := b != nil
	if known {
		u.near.add(float64(u.last.since(b)), b.time, at)
		u.last.remove(b)
	} else {
		if len(u.last.blocks) == recent {
			u.last.remove(u.last.oldest())
		}
		b = &block{key: key}
	}
	b.time = at
	u.last.push(b)

	h := key.hash()
	if h >= u.threshold {
		return
	}
	b = u.sample.blocks[key]
	if b == nil {
		b = &block{key: key, hash: h}
		heap.Push(&u.largest, b)
		if !known {
			u.first++
		}
	} else {
		if !known {
			// Blocks that were read since then, of the sample and so of all.
			u.far.add(max(float64(u.sample.since(b))/u.rate(), recent), b.time, at)
		}
		u.sample.remove(b)
	}
	b.time = at
	u.sample.push(b)
	if len(u.sample.blocks) > sampled {
		u.thin()
	}
}

func (u *Reuse) rate() float64 { return float64(u.threshold) / (1 << hashBits) }

// bucket is the one that a distance in blocks is in.
func bucket(distance float64) int { return int(math.Ceil(perOctave * math.Log2(distance+1))) }

// cacheSize is the least number of blocks in a cache that serves a bucket.
func cacheSize(bucket int) float64 { return math.Exp2(float64(bucket) / perOctave) }

// thin makes the sample sparser.
func (u *Reuse) thin() {
	old := u.threshold
	u.threshold = max(u.largest[0].hash, 1)
	for len(u.largest) > 0 && u.largest[0].hash >= u.threshold {
		u.sample.remove(heap.Pop(&u.largest).(*block))
	}
	part := float64(u.threshold) / float64(old)
	u.far.scale(part)
	u.first *= part
}

// hitRatio returns what share of the reads a cache of so many blocks would have served.
func (u *Reuse) hitRatio(blocks float64) float64 {
	if u.all == 0 {
		return 0
	}
	hits := 0.0
	for b, n := range u.near.distances {
		if cacheSize(b) <= blocks*1.0000001 {
			hits += n
		}
	}
	for b, n := range u.far.distances {
		if cacheSize(b) <= blocks*1.0000001 {
			hits += n / u.rate()
		}
	}
	return min(hits/float64(u.all), 1)
}

// share returns what share of all reads some are that were counted as of threshold.
func (u *Reuse) share(near, far float64) float64 {
	if u.all == 0 {
		return 0
	}
	return min((near+far/u.rate())/float64(u.all), 1)
}

// stack has blocks by when they were read last.
type stack struct {
	blocks map[blockKey]*block
	tree   fenwick
	at     []*block // by place, nil for none
	first  int      // place that no block is before
	next   int      // place for the block that is read next
}

func newStack(most int) stack {
	return stack{blocks: make(map[blockKey]*block), tree: make(fenwick, 4*most+1), at: make([]*block, 4*most)}
}

// push puts a block on top, as the one that was read last.
func (s *stack) push(b *block) {
	if s.next == len(s.at) {
		s.compact()
	}
	b.place = s.next
	s.at[b.place] = b
	s.tree.add(b.place, 1)
	s.blocks[b.key] = b
	s.next++
}

func (s *stack) remove(b *block) {
	s.at[b.place] = nil
	s.tree.add(b.place, -1)
	delete(s.blocks, b.key)
}

// since is how many blocks were read since a block was.
func (s *stack) since(b *block) int { return len(s.blocks) - s.tree.before(b.place+1) }

// oldest is the block that was not read for the longest time.
func (s *stack) oldest() *block {
	for s.at[s.first] == nil {
		s.first++
	}
	return s.at[s.first]
}

// compact makes room at the end.
func (s *stack) compact() {
	clear(s.tree)
	n := 0
	for place, b := range s.at {
		if b == nil {
			continue
		}
		s.at[place] = nil
		s.at[n], b.place = b, n
		s.tree.add(n, 1)
		n++
	}
	s.first, s.next = 0, n
}

// fenwick counts what is at the places 0 to len-2, in logarithmic time.
type fenwick []int32

func (f fenwick) add(place, n int) {
	for i := place + 1; i < len(f); i += i & -i {
		f[i] += int32(n)
	}
}

// before counts what is before a place.
func (f fenwick) before(place int) (n int) {
	for i := place; i > 0; i -= i & -i {
		n += int(f[i])
	}
	return n
}

// hashHeap has the block with the largest hash first.
type hashHeap []*block

func (h hashHeap) Len() int           { return len(h) }
func (h hashHeap) Less(i, j int) bool { return h[i].hash > h[j].hash }
func (h hashHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *hashHeap) Push(x any)        { *h = append(*h, x.(*block)) }
func (h *hashHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return x
}

// Places of the two plots.
const (
	ratioLeft, ratioWidth = plotLeft, 450.0
	timesLeft, timesWidth = plotLeft + 540, 320.0
)

// Draw is [Picture.Draw].
func (u *Reuse) Draw(w io.Writer, title string) error {
	what := fmt.Sprintf("%s read in blocks of %s", size(u.bytes), size(u.block))
	c := newCanvas(title, &u.t, what, u.bytes)
	u.drawRatio(c)
	u.drawTimes(c)
	sample := "all blocks"
	if u.threshold < 1<<hashBits {
		sample = fmt.Sprintf("a sample of %.2g %% of the blocks", 100*u.rate())
	}
	c.text("dim", plotLeft, legendY+4, "From "+sample+". A cache is taken to keep the blocks that were read last, and reads to be all that fills it.")
	u.t.drawMissing(c, 34, "records are missing")
	return c.finish(w)
}

// drawRatio draws the hit ratio by the size of a cache.
func (u *Reuse) drawRatio(c *canvas) {
	most := 1
	for _, distances := range []map[int]float64{u.near.distances, u.far.distances} {
		for b := range distances {
			most = max(most, b)
		}
	}
	octaves := float64((most+perOctave-1)/perOctave + 1)
	place := func(b float64) float64 { return ratioLeft + ratioWidth*b/perOctave/octaves }
	for i := range 6 {
		y := plotTop + plotHeight*(1-float64(i)/5)
		c.line("grid", ratioLeft, y, ratioLeft+ratioWidth, y)
		c.text("end", ratioLeft-9, y+4, fmt.Sprintf("%d %%", 20*i))
	}
	for o, step := 0, max(int(octaves)/6, 1); o <= int(octaves); o += step {
		x := place(float64(o * perOctave))
		c.line("grid", x, plotTop+plotHeight, x, plotTop+plotHeight+5)
		c.text("mid", x, plotTop+plotHeight+20, size(u.block<<o))
	}
	var path strings.Builder
	for b := 0; b <= int(octaves)*perOctave; b++ {
		y := plotTop + plotHeight*(1-u.hitRatio(cacheSize(b)))
		verb := "L"
		if b == 0 {
			verb = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", verb, place(float64(b)), y)
	}
	c.printf(`<path class="line" d="%s"><title>reads that a cache serves</title></path>`+"\n", &path)
	c.rect("frame", ratioLeft, plotTop, ratioWidth, plotHeight, "")
	c.text("", ratioLeft, plotTop-14, "reads that a cache would have served, by its size (hit ratio, LRU)")
	c.text("dim end", ratioLeft+ratioWidth, plotTop+plotHeight+38, "size of the cache")
}

// drawTimes draws how long it takes until a block is read again.
func (u *Reuse) drawTimes(c *canvas) {
	// Below a millisecond is one bar.
	least := int(2 * math.Log2(float64(time.Millisecond)))
	sums := map[int]float64{}
	most := least + 12
	for b, n := range u.near.times {
		sums[max(b, least)] += u.share(n, 0)
		most = max(most, b)
	}
	for b, n := range u.far.times {
		sums[max(b, least)] += u.share(0, n)
		most = max(most, b)
	}
	top := 0.0
	for _, share := range sums {
		top = max(top, share)
	}
	top = max(math.Ceil(top*20)/20, 0.05)
	for i := range 6 {
		y := plotTop + plotHeight*(1-float64(i)/5)
		c.line("grid", timesLeft, y, timesLeft+timesWidth, y)
		c.text("end", timesLeft-9, y+4, fmt.Sprintf("%.3g %%", 100*top*float64(i)/5))
	}
	wide := timesWidth / float64(most-least+1)
	for b := least; b <= most; b++ {
		share := sums[b]
		from := time.Duration(math.Exp2(float64(b) / 2))
		if share > 0 {
			tall := plotHeight * share / top
			c.rect("bar", timesLeft+wide*float64(b-least), plotTop+plotHeight-tall, max(wide-1, 0.5), tall,
				fmt.Sprintf("%.2g %% after %v or more", 100*share, from.Round(time.Millisecond)))
		}
	}
	next := 0.0
	for _, mark := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute,
		10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour} {
		x := timesLeft + wide*(2*math.Log2(float64(mark))-float64(least))
		text := markText(mark)
		if x < next || x > timesLeft+timesWidth {
			continue
		}
		next = x + textWidth(text) + 8
		c.line("grid", x, plotTop+plotHeight, x, plotTop+plotHeight+5)
		c.text("mid", x, plotTop+plotHeight+20, text)
	}
	c.rect("frame", timesLeft, plotTop, timesWidth, plotHeight, "")
	c.text("", timesLeft, plotTop-14, fmt.Sprintf("reads again, by the time since (%.0f %% are first reads)", 100*u.share(0, u.first)))
	c.text("dim end", timesLeft+timesWidth, plotTop+plotHeight+38, "time since the block was read before")
}

// markText writes the time of a mark.
func markText(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%d d", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d >= time.Second:
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%d ms", d/time.Millisecond)
}
