// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"bytes"
	"container/list"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var start = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func read(after time.Duration, ino, offset, length uint64, uid uint32) *notify.Record {
	return &notify.Record{Type: notify.TypeRead, TimeNS: uint64(start.Add(after).UnixNano()), Ino: ino, Offset: offset, Length: length, UID: uid}
}

func lost(after time.Duration, n uint64) *notify.Lost {
	return &notify.Lost{Count: n, Cause: notify.LostQueue, Time: start.Add(after)}
}

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

// kinds are the pictures.
var kinds = map[string]func(Names) Picture{
	"heatmap": func(n Names) Picture { return NewHeatmap(n) },
	"treemap": func(n Names) Picture { return NewTreemap(n) },
	"reuse":   func(Names) Picture { return NewReuse(64 << 10) },
	"who":     func(n Names) Picture { return NewWho(n) },
}

var someNames = Names{
	Path: func(ino uint64) string {
		return fmt.Sprintf("project%d/run%d/part%d/data.%d", ino%5, ino%17, ino%3, ino)
	},
	User: func(uid uint32) string { return fmt.Sprintf("user%d", uid) },
}

// draw draws a picture, and checks that it is whole and needs nothing from elsewhere.
func draw(t *testing.T, p Picture, title string) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Draw(&b, title); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict = true
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("it is not XML: %v", err)
		}
		el, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		if el.Name.Local == "script" {
			t.Error("it has a script")
		}
		for _, a := range el.Attr {
			if a.Name.Local == "href" && !strings.HasPrefix(a.Value, "data:image/png;base64,") {
				t.Errorf("it needs %s", a.Value)
			}
			if a.Name.Local != "href" && (strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf")) {
				t.Errorf("%s of %s is %s", a.Name.Local, el.Name.Local, a.Value)
			}
		}
	}
	for _, part := range []string{"prefers-color-scheme: dark", `class="title"`} {
		if !strings.Contains(text, part) {
			t.Errorf("it has no %s", part)
		}
	}
	if dir := os.Getenv("PICTURES"); dir != "" {
		name := filepath.Join(dir, regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(t.Name(), "-")+".svg")
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

// Each picture of nothing, of one read, of one file and of many.
func TestPictures(t *testing.T) {
	many := 20_000
	if os.Getenv("PICTURES") != "" {
		many = 1_000_000
	}
	for kind, make := range kinds {
		for name, fill := range map[string]func(p Picture){
			"nothing":   func(Picture) {},
			"only loss": func(p Picture) { p.Add(lost(0, 5)) },
			"one read":  func(p Picture) { p.Add(read(0, 7, 0, 100, 0)) },
			"one file": func(p Picture) {
				r := rand.New(rand.NewPCG(1, 2))
				for i := range 20_000 {
					at := time.Duration(i) * 10 * time.Millisecond
					p.Add(read(at, 7, uint64(i)*5000, 4096, 1))
					p.Add(read(at, 7, uint64(min(math.Abs(r.NormFloat64())*1e7, 9e7)), 65536, 2))
					if i%7000 == 6999 {
						p.Add(lost(at+2*time.Second, 17))
					}
				}
			},
			"many files": func(p Picture) {
				r := rand.New(rand.NewPCG(1, 2))
				zipf := rand.NewZipf(r, 1.1, 10, uint64(many-1))
				for i := range 2 * many {
					at := time.Duration(i) * time.Hour / time.Duration(2*many)
					ino := zipf.Uint64()
					if i%2 == 0 {
						ino = uint64(i / 2)
					}
					p.Add(read(at, 1000+ino, uint64(i%5)<<16, 1+uint64(r.IntN(1<<20)), uint32(ino%13)))
				}
				p.Add(lost(time.Hour, 1))
			},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				p := make(someNames)
				fill(p)
				text := draw(t, p, "What was read on /mnt/scoutfs")
				if len(text) > 300_000 {
					t.Errorf("it has %d bytes", len(text))
				}
				if missing := name == "only loss" || name == "one file" || name == "many files"; strings.Contains(text, "records are missing") != missing {
					t.Errorf("missing records are shown: %v, want %v", !missing, missing)
				}
			})
		}
	}
}

// Whatever a file or a user is called, the picture is one.
func TestAnyByte(t *testing.T) {
	for b := 1; b < 256; b++ {
		name := string([]byte{'<', byte(b), '>', '&', '"', '\''}) + "\u202e]]>"
		for kind, make := range kinds {
			p := make(Names{Path: func(ino uint64) string { return fmt.Sprintf("%s/%s%d", name, name, ino) }, User: func(uint32) string { return name }})
			p.Add(read(0, 1, 0, 1e6, 0))
			p.Add(read(time.Second, 2, 0, 1e6, 0))
			if text := draw(t, p, name); strings.Contains(text, "\u202e") {
				t.Errorf("%s: byte %#x: a mark of direction is in it", kind, b)
			}
		}
	}
}

// pixels returns the values that the image for light grounds shows, as levels from 1, 0 for none.
// The first row is at the top.
func pixels(t *testing.T, text string) [][]uint8 {
	t.Helper()
	m := regexp.MustCompile(`<image class="light"[^>]* href="data:image/png;base64,([^"]*)"`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("there is no image")
	}
	raw, err := base64.StdEncoding.DecodeString(m[1])
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	b := img.Bounds()
	rows := make([][]uint8, b.Dy())
	index := img.(interface{ ColorIndexAt(x, y int) uint8 })
	for y := range rows {
		for x := range b.Dx() {
			rows[y] = append(rows[y], index.ColorIndexAt(x, y))
		}
	}
	return rows
}

// A heatmap of one file has its offsets by time.
func TestHeatmapOffsets(t *testing.T) {
	h := NewHeatmap(Names{})
	h.Add(read(0, 7, 0, 4096, 0))                         // bottom left
	h.Add(read(3*time.Millisecond, 7, 3*4096, 2*4096, 0)) // two rows at the top right
	h.Add(read(3*time.Millisecond, 7, 4096+4095, 2, 0))   // a byte in each of two
	got := pixels(t, draw(t, h, "x"))
	want := [][]bool{{false, false, false, true}, {false, false, false, true}, {false, false, false, true}, {false, false, false, true}, {true, false, false, false}}
	for y := range want {
		for x := range want[y] {
			if len(got) != len(want) || (got[y][x] > 0) != want[y][x] {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	}
	if got[0][3] <= got[2][3] {
		t.Errorf("4096 bytes have the level %d, 1 byte has %d", got[0][3], got[2][3])
	}
}

// However far time and offsets reach, all bytes stay in the picture.
func TestHeatmapFolds(t *testing.T) {
	h := NewHeatmap(Names{})
	r := rand.New(rand.NewPCG(1, 2))
	want := uint64(0)
	for i := range 10_000 {
		n := 1 + uint64(r.IntN(1<<18))
		h.Add(read(time.Duration(i)*time.Duration(i)*time.Millisecond, 7, uint64(r.IntN(1+i*i)), n, 0))
		want += n
	}
	sum := uint64(0)
	for _, v := range h.offsets.cells {
		sum += v
	}
	if sum != want {
		t.Errorf("offsets: %d bytes, want %d", sum, want)
	}
	sum = 0
	for _, c := range h.groups[7].cells {
		sum += c.bytes
	}
	if sum != want {
		t.Errorf("files: %d bytes, want %d", sum, want)
	}
	h.Add(read(0, 7, math.MaxUint64-10, math.MaxUint64, 0)) // nonsense, but no crash
	draw(t, h, "x")
}

// With more files than there is room for, neighbours become one, and no byte is missing.
func TestHeatmapGroups(t *testing.T) {
	h := NewHeatmap(Names{})
	for i := range uint64(maxGroups + 1000) {
		h.Add(read(time.Duration(i)*time.Millisecond, 1000+i, 0, 10, 0))
	}
	sum, cells := uint64(0), 0
	for _, g := range h.groups {
		cells += len(g.cells)
		for _, c := range g.cells {
			sum += c.bytes
		}
	}
	if sum != 10*(maxGroups+1000) || h.shift == 0 || cells != h.cells {
		t.Errorf("%d bytes, shift %d, %d cells and counted %d", sum, h.shift, cells, h.cells)
	}
}

// Records that are missing are hatched from the last that was told until it was noticed.
func TestLost(t *testing.T) {
	w := NewWho(Names{})
	w.Add(read(0, 1, 0, 1, 0))
	w.Add(read(10*time.Millisecond, 1, 0, 1, 0))
	w.Add(lost(20*time.Millisecond, 3))
	w.Add(read(99*time.Millisecond, 1, 0, 1, 0))
	for c := range 100 {
		if w.t.lost[c] != (c >= 10 && c <= 20) {
			t.Errorf("column %d: %v", c, w.t.lost[c])
		}
	}
	m := regexp.MustCompile(`<rect class="lost" x="([\d.]+)" y="90.00" width="([\d.]+)"`).FindAllStringSubmatch(draw(t, w, "x"), -1)
	if len(m) != 1 || m[0][1] != "196.00" || m[0][2] != "94.60" {
		t.Errorf("got %q", m)
	}
}

// A folder's box is as large as what was read in it is of all.
func TestTreemapAreas(t *testing.T) {
	paths := map[uint64]string{1: "a/x", 2: "a/b/x", 3: "c/x", 4: "d/e/f/x", 5: "top"}
	sizes := map[uint64]uint64{1: 1000, 2: 3000, 3: 2000, 4: 500, 5: 3500}
	m := NewTreemap(Names{Path: func(ino uint64) string { return paths[ino] }})
	for ino := uint64(1); ino <= 5; ino++ {
		m.Add(read(time.Duration(ino)*time.Second, ino, 0, sizes[ino], 0))
	}
	m.root.add()
	boxes := squarify(m.root.boxes(), 0, 0, 400, 300)
	for _, b := range boxes {
		if got, want := b.w*b.h/(400*300), float64(b.bytes)/10000; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s has %v of the area and %v of the bytes", b.name, got, want)
		}
		for _, o := range boxes {
			if o.name != b.name && b.x < o.x+o.w-1e-9 && o.x < b.x+b.w-1e-9 && b.y < o.y+o.h-1e-9 && o.y < b.y+b.h-1e-9 {
				t.Errorf("%s and %s overlap", b.name, o.name)
			}
		}
	}
	text := draw(t, m, "x")
	for _, want := range []string{
		"a/files here: 1.0 KiB, last read 4 s before the end", "a/b: 2.9 KiB, last read 3 s before the end", "files here: 3.4 KiB, last read 0s before the end",
	} {
		if !strings.Contains(text, "<title>"+want+"</title>") {
			t.Errorf("there is no %q in %s", want, text)
		}
	}
}

// lru is a cache that keeps what was read last: the truth that the reuse picture is
// compared with.
type lru struct {
	room  int
	order *list.List
	in    map[blockKey]*list.Element
	hits  int
}

func (c *lru) read(k blockKey) {
	if e := c.in[k]; e != nil {
		c.hits++
		c.order.MoveToFront(e)
		return
	}
	if c.order.Len() == c.room {
		delete(c.in, c.order.Remove(c.order.Back()).(blockKey))
	}
	c.in[k] = c.order.PushFront(k)
}

// The hit ratio is within 0.02 of the exact one, at every size of a cache.
func TestReuseExact(t *testing.T) {
	const reads = 60_000
	type workload = func(r *rand.Rand) func(i int) uint64
	for name, w := range map[string]workload{
		"zipf": func(r *rand.Rand) func(int) uint64 {
			z := rand.NewZipf(r, 1.05, 20, 200_000)
			return func(int) uint64 { return z.Uint64() }
		},
		"uniform": func(r *rand.Rand) func(int) uint64 { return func(int) uint64 { return r.Uint64N(100_000) } },
		"hot files and a scan": func(r *rand.Rand) func(int) uint64 {
			z := rand.NewZipf(r, 1.2, 5, 20_000)
			return func(i int) uint64 {
				if i%3 == 0 {
					return 1<<30 + uint64(i)
				}
				return z.Uint64()
			}
		},
		"the last day again": func(r *rand.Rand) func(int) uint64 {
			return func(i int) uint64 { return uint64(max(0, float64(i)/2-math.Abs(r.NormFloat64())*20_000)) }
		},
		"few blocks": func(r *rand.Rand) func(int) uint64 { return func(int) uint64 { return r.Uint64N(100) } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := NewReuse(4096)
			next := w(rand.New(rand.NewPCG(1, 2)))
			var caches []*lru
			for room := 16; room <= 1<<18; room *= 4 {
				caches = append(caches, &lru{room: room, order: list.New(), in: make(map[blockKey]*list.Element)})
			}
			for i := range reads {
				n := next(i)
				// Files of a hundred blocks.
				k := blockKey{1 + n/100, n % 100}
				for _, c := range caches {
					c.read(k)
				}
				u.Add(read(time.Duration(i)*time.Millisecond, k.ino, k.number*4096, 4096, 0))
			}
			worst := 0.0
			for _, c := range caches {
				got, want := u.hitRatio(float64(c.room)), float64(c.hits)/reads
				worst = max(worst, math.Abs(got-want))
				if math.Abs(got-want) > 0.02 {
					t.Errorf("a cache of %d blocks: %.3f, exactly %.3f", c.room, got, want)
				}
			}
			t.Logf("at most %.4f off, with %.2g of the blocks", worst, u.rate())
			if name != "few blocks" && u.rate() == 1 {
				t.Error("all blocks are in the sample: this tries nothing")
			}
		})
	}
}

// With all blocks in the sample the picture is exact, but for how finely sizes are told
// apart.
func TestReuseAll(t *testing.T) {
	u := NewReuse(4096)
	c := &lru{room: 64, order: list.New(), in: make(map[blockKey]*list.Element)}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 100_000 { // the order is compacted, too
		n := uint64(math.Abs(r.NormFloat64()) * 40)
		c.read(blockKey{1, n})
		u.Add(read(time.Duration(i)*time.Millisecond, 1, n*4096, 4096, 0))
	}
	if got, want := u.hitRatio(64), float64(c.hits)/100_000; math.Abs(got-want) > 1e-9 {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A read counts once for each block that it touches, and no read for too many.
func TestReuseBlocks(t *testing.T) {
	for _, tt := range []struct{ offset, length, want uint64 }{
		{0, 1, 1}, {0, 4096, 1}, {4095, 2, 2}, {100, 8192, 3}, {math.MaxUint64 - 1, 2, 1}, {0, math.MaxUint64, 1<<19 - 1},
	} {
		u := NewReuse(4096)
		u.Add(read(0, 1, tt.offset, tt.length, 0))
		if u.all != tt.want {
			t.Errorf("%d bytes at %d: %d blocks, want %d", tt.length, tt.offset, u.all, tt.want)
		}
	}
}

// However much is read, the memory for a picture has a bound.
func TestMemory(t *testing.T) {
	for kind, make := range kinds {
		used := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := used()
		p := make(Names{Path: func(ino uint64) string { return fmt.Sprintf("folder%d/file%d", ino, ino) }})
		for i := range uint64(150_000) {
			p.Add(read(time.Duration(i)*time.Millisecond, mix(i)>>20, 0, 1<<16, uint32(i)))
		}
		got := used() - before
		t.Logf("%s: %d MiB", kind, got>>20)
		if got > 150<<20 {
			t.Errorf("%s: %d MiB", kind, got>>20)
		}
		runtime.KeepAlive(p)
	}
}

func BenchmarkAdd(b *testing.B) {
	for kind, make := range kinds {
		b.Run(kind, func(b *testing.B) {
			p := make(Names{Path: func(uint64) string { return "some/folder/file" }})
			r := rand.New(rand.NewPCG(1, 2))
			z := rand.NewZipf(r, 1.1, 10, 100_000)
			recs := []*notify.Record{}
			for i := range 1 << 16 {
				recs = append(recs, read(time.Duration(i)*time.Millisecond, z.Uint64(), uint64(r.IntN(1<<24)), 1<<16, uint32(i%7)))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Add(recs[i&(1<<16-1)])
			}
		})
	}
}
