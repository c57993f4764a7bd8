// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// maxFolders is how many folders are told apart. What is below another one is its
	// own.
	maxFolders = 1 << 16

	// maxFiles is how many files are kept in mind with their folder.
	maxFiles = 1 << 17

	// maxBoxes is how many boxes are drawn in one folder, the last for the rest.
	maxBoxes = 40

	// minBox is how large a box is that is divided any further, in square pixels.
	minBox = 900
)

// Treemap shows how much was read of the files in each folder, as the size of a box, and
// how long ago, as its colour. Files whose path is not known have a box each.
type Treemap struct {
	names   Names
	t       timeline
	root    *folder
	folders int
	files   map[uint64]*folder
}

// folder is what was read of the files in a folder.
type folder struct {
	name     string
	children map[string]*folder
	own, sum uint64 // bytes, without and with what is below; sum is made for drawing
	last     time.Time
}

// NewTreemap makes a treemap.
func NewTreemap(names Names) *Treemap {
	return &Treemap{names: names, root: &folder{}, files: make(map[uint64]*folder)}
}

// Add is [Picture.Add].
func (m *Treemap) Add(ev notify.Event) {
	m.t.add(ev)
	r, ok := ev.(*notify.Record)
	if !ok || r.Type != notify.TypeRead {
		return
	}
	f := m.files[r.Ino]
	if f == nil {
		if len(m.files) >= maxFiles {
			clear(m.files) // names are asked for again
		}
		var known bool
		if f, known = m.folder(r.Ino); known {
			m.files[r.Ino] = f
		}
	}
	f.own += r.Length
	if at := r.Time(); at.After(f.last) {
		f.last = at
	}
}

// folder finds the folder of a file. If its path is not known yet, it may be later.
func (m *Treemap) folder(ino uint64) (f *folder, known bool) {
	path := m.names.path(ino)
	if path == "" {
		return m.child(m.child(m.root, "path not known"), "inode "+strconv.FormatUint(ino, 10)), false
	}
	f = m.root
	parts := strings.Split(path, "/")
	for _, name := range parts[:len(parts)-1] {
		f = m.child(f, name)
	}
	return f, true
}

// child returns a folder in another, which is the other one if there are too many.
func (m *Treemap) child(f *folder, name string) *folder {
	if c := f.children[name]; c != nil {
		return c
	}
	if m.folders >= maxFolders {
		return f
	}
	m.folders++
	c := &folder{name: name}
	if f.children == nil {
		f.children = make(map[string]*folder)
	}
	f.children[name] = c
	return c
}

// add adds up what is below a folder.
func (f *folder) add() uint64 {
	f.sum = f.own
	for _, c := range f.children {
		f.sum += c.add()
	}
	return f.sum
}

// box is a part of the map: a folder, the files in it, or several small ones.
type box struct {
	name  string
	f     *folder // nil for several
	own   bool    // only the files in it
	bytes uint64
	last  time.Time

	x, y, w, h float64
}

// boxes returns the parts of a folder, the largest first.
func (f *folder) boxes() []box {
	var all []box
	if f.own > 0 {
		all = append(all, box{name: "files here", f: f, own: true, bytes: f.own, last: f.last})
	}
	for _, c := range f.children {
		if c.sum > 0 {
			all = append(all, box{name: c.name, f: c, own: len(c.children) == 0, bytes: c.sum, last: c.last})
		}
	}
	slices.SortFunc(all, func(a, b box) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.name, b.name)) })
	if len(all) > maxBoxes {
		rest := box{name: fmt.Sprintf("%d smaller ones", len(all)-maxBoxes+1)}
		for _, b := range all[maxBoxes-1:] {
			rest.bytes += b.bytes
			if at := b.f.newest(); at.After(rest.last) {
				rest.last = at
			}
		}
		all = append(all[:maxBoxes-1], rest)
	}
	return all
}

// newest is when something in a folder or below was read last.
func (f *folder) newest() time.Time {
	at := f.last
	for _, c := range f.children {
		if n := c.newest(); n.After(at) {
			at = n
		}
	}
	return at
}

// Draw is [Picture.Draw].
func (m *Treemap) Draw(w io.Writer, title string) error {
	m.root.add()
	what := fmt.Sprintf("%s read in %s", size(m.root.sum), count(uint64(max(m.folders, 1)), "folder", "folders"))
	c := newCanvas(title, &m.t, what, m.root.sum, scaleStyle(), labelStyle)
	d := mapDrawing{t: m}
	if m.root.sum > 0 {
		d.divide(m.root, "", plotLeft-60, plotTop-10, plotWidth+60, plotHeight+30)
	}
	ages := make([]uint64, len(d.leaves))
	for i, b := range d.leaves {
		ages[i] = m.age(b)
	}
	lim := limits(ages)
	for _, b := range d.leaves {
		c.rect(fmt.Sprintf("box l%d", levels-1-level(&lim, m.age(b))), b.x, b.y, b.w, b.h,
			fmt.Sprintf("%s: %s, last read %s before the end", b.name, size(b.bytes), elapsed(m.t.last.Sub(b.last))))
	}
	for _, l := range d.labels {
		c.text(l.class, l.x, l.y, l.text)
	}
	if m.root.sum > 0 {
		drawScale(c, "last read before the end of the time, in folders of a colour at most", func(i int) string {
			return "≤ " + elapsed(time.Duration(lim[levels-1-i]-1))
		}, func(i int) bool { return i < levels-1 && lim[levels-1-i] == lim[levels-2-i] })
	}
	m.t.drawMissing(c, 34, "records are missing: sizes are too small")
	return c.finish(w)
}

// age is how long ago a part was read, and never 0.
func (m *Treemap) age(b box) uint64 { return uint64(max(m.t.last.Sub(b.last), 0)) + 1 }

// labelStyle makes labels legible on any box.
const labelStyle = `
.label { paint-order: stroke; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round }
.head { font-weight: 600; paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
@media (prefers-color-scheme: dark) { .label, .head { stroke: #0d1117 } }
`

// mapDrawing is what there is to draw.
type mapDrawing struct {
	t      *Treemap
	leaves []box
	labels []label
}

type label struct {
	class string
	x, y  float64
	text  string
}

// divide divides a rectangle among the parts of a folder, each of which gets a part of the
// area like that of its bytes.
func (d *mapDrawing) divide(f *folder, path string, x, y, w, h float64) {
	for _, b := range squarify(f.boxes(), x, y, w, h) {
		full := strings.TrimPrefix(path+"/"+b.name, "/")
		if b.f == nil || b.own || b.w*b.h < minBox {
			d.leaf(b, full)
			continue
		}
		// A folder's name is above its parts, if there is room for it.
		head := 0.0
		if b.h > 40 && b.w > 50 {
			head = 16
			text := b.name + "/  " + size(b.bytes)
			if textWidth(text) > b.w-8 {
				text = shortenEnd(b.name+"/", b.w-8)
			}
			d.labels = append(d.labels, label{"head", b.x + 4, b.y + 13, text})
		}
		d.divide(b.f, full, b.x+1, b.y+head, max(b.w-2, 0), max(b.h-head-1, 0))
	}
}

// leaf draws a part that is not divided any further.
func (d *mapDrawing) leaf(b box, path string) {
	if b.f != nil && !b.own {
		b.last = b.f.newest()
	}
	if text := shortenEnd(b.name, b.w-8); b.h > 16 && text != "" {
		d.labels = append(d.labels, label{"label", b.x + 4, b.y + 13, text})
		if bytes := size(b.bytes); b.h > 32 && textWidth(bytes) < b.w-8 {
			d.labels = append(d.labels, label{"label dim", b.x + 4, b.y + 28, bytes})
		}
	}
	b.name = path
	d.leaves = append(d.leaves, b)
}

// squarify lays out boxes, the largest first, so that they are not much longer than wide
// (Bruls, Huizing and van Wijk, 2000).
func squarify(boxes []box, x, y, w, h float64) []box {
	total := 0.0
	for _, b := range boxes {
		total += float64(b.bytes)
	}
	if total == 0 || w <= 0 || h <= 0 {
		return nil
	}
	per := w * h / total
	for rest := boxes; len(rest) > 0; {
		side := min(w, h)
		// As many in a row as make it less oblong.
		n, sum := 0, 0.0
		for worst := 0.0; n < len(rest); n++ {
			area := float64(rest[n].bytes) * per
			ratio := oblong(float64(rest[0].bytes)*per, area, sum+area, side)
			if n > 0 && ratio > worst {
				break
			}
			worst, sum = ratio, sum+area
		}
		deep := sum / side
		at := 0.0
		for i := range rest[:n] {
			b := &rest[i]
			long := float64(b.bytes) * per / deep
			if w >= h {
				b.x, b.y, b.w, b.h = x, y+at, deep, long
			} else {
				b.x, b.y, b.w, b.h = x+at, y, long, deep
			}
			at += long
		}
		if w >= h {
			x, w = x+deep, max(w-deep, 0)
		} else {
			y, h = y+deep, max(h-deep, 0)
		}
		rest = rest[n:]
	}
	return boxes
}

// oblong is how much longer than wide the worst of a row is whose largest and smallest
// areas, sum and side are given.
func oblong(largest, smallest, sum, side float64) float64 {
	s := side * side
	return max(s*largest/(sum*sum), sum*sum/(s*smallest))
}
