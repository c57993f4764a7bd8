// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// offsetRows is how many rows a file's offsets have at most.
	offsetRows = 256

	// minOffsets is how many offsets are in a row at least.
	minOffsets = 4096

	// fileRows is how many rows are drawn at most when each is a file, or several.
	fileRows = 400

	// maxGroups is how many groups of files are kept apart, and maxCells how many pairs of
	// a group and a column.
	maxGroups = 1 << 16
	maxCells  = 1 << 21
)

// Heatmap shows when which part was read: of a file, if only one is read, the offsets by
// time, and otherwise the files by time. Up to 65,536 files are told apart; of more, those
// with inode numbers next to each other are one.
type Heatmap struct {
	names Names
	t     timeline
	bytes uint64

	// The only file so far: its offsets.
	only     bool
	ino      uint64
	offsets  *grid
	perRow   uint64
	lastByte uint64

	// All files, in groups of 1<<shift inode numbers each.
	groups map[uint64]*group
	shift  uint
	cells  int
}

// group is what was read of files with neighbouring inode numbers.
type group struct {
	name  string // path, of one
	cells []cell // by column
}

type cell struct {
	column int
	bytes  uint64
}

// NewHeatmap makes a heatmap.
func NewHeatmap(names Names) *Heatmap {
	h := &Heatmap{names: names, only: true, offsets: newGrid(maxColumns, offsetRows), perRow: minOffsets, groups: make(map[uint64]*group)}
	h.t.fold = h.foldTime
	return h
}

// Add is [Picture.Add].
func (h *Heatmap) Add(ev notify.Event) {
	column := h.t.add(ev)
	r, ok := ev.(*notify.Record)
	if !ok || r.Type != notify.TypeRead || r.Length == 0 {
		return
	}
	h.bytes += r.Length
	if h.ino == 0 {
		h.ino = r.Ino
	}
	if h.only && r.Ino != h.ino {
		h.only, h.offsets = false, nil
	}
	if h.only {
		h.addOffsets(column, r)
	}
	h.addFile(column, r)
}

// addOffsets adds a read to each row that it touches.
func (h *Heatmap) addOffsets(column int, r *notify.Record) {
	first, last := r.Offset, r.Offset+r.Length-1
	if last < first {
		last = ^uint64(0) // no file is that long
	}
	h.lastByte = max(h.lastByte, last)
	for last/h.perRow >= offsetRows {
		h.foldOffsets()
	}
	for row := first / h.perRow; row <= last/h.perRow; row++ {
		from, to := max(first, row*h.perRow), min(last, row*h.perRow+h.perRow-1)
		*h.offsets.at(column, int(row)) += to - from + 1
	}
}

func (h *Heatmap) foldOffsets() {
	h.perRow *= 2
	for row := range offsetRows {
		for column := range maxColumns {
			v := uint64(0)
			if row < offsetRows/2 {
				v = *h.offsets.at(column, 2*row) + *h.offsets.at(column, 2*row+1)
			}
			*h.offsets.at(column, row) = v
		}
	}
}

func (h *Heatmap) addFile(column int, r *notify.Record) {
	g := h.groups[r.Ino>>h.shift]
	if g == nil {
		for len(h.groups) >= maxGroups {
			h.foldGroups()
		}
		key := r.Ino >> h.shift
		if g = h.groups[key]; g == nil {
			g = new(group)
			if h.shift == 0 {
				g.name = h.names.path(r.Ino)
			}
			h.groups[key] = g
		}
	}
	h.cells += g.add(column, r.Length)
	for h.cells > maxCells && len(h.groups) > 1 {
		h.foldGroups()
	}
}

// add adds bytes, and returns how many cells that makes more.
func (g *group) add(column int, bytes uint64) int {
	// Nearly always the last one, or after it.
	i := len(g.cells)
	for i > 0 && g.cells[i-1].column > column {
		i--
	}
	if i > 0 && g.cells[i-1].column == column {
		g.cells[i-1].bytes += bytes
		return 0
	}
	g.cells = slices.Insert(g.cells, i, cell{column, bytes})
	return 1
}

// foldGroups makes one of each two groups.
func (h *Heatmap) foldGroups() {
	h.shift++
	old := h.groups
	h.groups, h.cells = make(map[uint64]*group, len(old)), 0
	for key, g := range old {
		to := h.groups[key/2]
		if to == nil {
			h.groups[key/2] = g
			h.cells += len(g.cells)
			continue
		}
		for _, c := range g.cells {
			h.cells += to.add(c.column, c.bytes)
		}
	}
}

// foldTime makes one of each two columns.
func (h *Heatmap) foldTime() {
	if h.offsets != nil {
		for row := range offsetRows {
			for column := range maxColumns {
				v := uint64(0)
				if column < maxColumns/2 {
					v = *h.offsets.at(2*column, row) + *h.offsets.at(2*column+1, row)
				}
				*h.offsets.at(column, row) = v
			}
		}
	}
	h.cells = 0
	for _, g := range h.groups {
		old := g.cells
		g.cells = g.cells[:0]
		for _, c := range old {
			g.add(c.column/2, c.bytes)
		}
		h.cells += len(g.cells)
	}
}

// Draw is [Picture.Draw].
func (h *Heatmap) Draw(w io.Writer, title string) error {
	what := fmt.Sprintf("%s of %s read", size(h.bytes), h.filesText())
	c := newCanvas(title, &h.t, what, h.bytes, scaleStyle())
	var err error
	if h.only {
		err = h.drawOffsets(c)
	} else {
		err = h.drawFiles(c)
	}
	if err != nil {
		return err
	}
	h.t.drawLost(c)
	c.rect("frame", plotLeft, plotTop, plotWidth, plotHeight, "")
	h.t.drawTime(c)
	h.t.drawLostLegend(c)
	return c.finish(w)
}

func (h *Heatmap) filesText() string {
	switch {
	case h.ino == 0:
		return "no file"
	case h.only:
		for _, g := range h.groups {
			if g.name != "" {
				return g.name
			}
		}
		return "inode " + strconv.FormatUint(h.ino, 10)
	case h.shift > 0:
		return fmt.Sprintf("%s of up to %d files each", count(uint64(len(h.groups)), "group", "groups"), 1<<h.shift)
	}
	return count(uint64(len(h.groups)), "file", "files")
}

func (h *Heatmap) drawOffsets(c *canvas) error {
	columns := h.t.columns()
	rows := int(h.lastByte/h.perRow) + 1
	if columns == 0 || h.ino == 0 {
		return nil
	}
	g := newGrid(columns, rows)
	for row := range rows {
		for column := range columns {
			*g.at(column, row) = *h.offsets.at(column, row)
		}
	}
	if err := g.draw(c, fmt.Sprintf("bytes read of %s in %v", size(h.perRow), h.t.each), size); err != nil {
		return err
	}
	end := float64(h.perRow) * float64(rows)
	step := math.Exp2(math.Ceil(math.Log2(end / 8)))
	for at := 0.0; at <= end; at += step {
		y := plotTop + plotHeight*(1-at/end)
		c.line("grid", plotLeft-5, y, plotLeft, y)
		c.text("end", plotLeft-9, y+4, size(uint64(at)))
	}
	c.text("dim", 10, plotTop-14, "offset in the file")
	return nil
}

func (h *Heatmap) drawFiles(c *canvas) error {
	type item struct {
		key uint64
		*group
	}
	items := make([]item, 0, len(h.groups))
	for key, g := range h.groups {
		items = append(items, item{key, g})
	}
	// By path, so that folders are together. Those without a name are last.
	named := h.shift == 0
	slices.SortFunc(items, func(a, b item) int {
		if named && (a.name == "") != (b.name == "") {
			return cmp.Compare(b.name, a.name)
		}
		if named && a.name != b.name {
			return cmp.Compare(a.name, b.name)
		}
		return cmp.Compare(a.key, b.key)
	})
	rows := min(len(items), fileRows)
	g := newGrid(h.t.columns(), rows)
	row := func(i int) int { return rows - 1 - i*rows/len(items) } // the first is at the top
	for i, it := range items {
		for _, cell := range it.cells {
			*g.at(cell.column, row(i)) += cell.bytes
		}
	}
	of := "a file"
	if len(items) > rows || h.shift > 0 {
		of = fmt.Sprintf("about %s", count(uint64(len(items))<<h.shift/uint64(rows), "file", "files"))
	}
	if err := g.draw(c, fmt.Sprintf("bytes read of %s in %v", of, h.t.each), size); err != nil {
		return err
	}
	// Labels as far apart as they have to be.
	per := plotHeight / float64(rows)
	next := 0.0
	for i, it := range items {
		y := plotTop + per*(float64(rows-1-row(i))+0.5)
		if y < next {
			continue
		}
		next = y + 14
		label := it.name
		if label == "" || !named {
			label = "inode " + strconv.FormatUint(it.key<<h.shift, 10)
		}
		about := label
		c.printf(`<g><title>%s</title>`, escape(about))
		c.text("end", plotLeft-6, y+4, shorten(label, plotLeft-10))
		c.printf("</g>\n")
	}
	c.text("dim", 10, plotTop-14, "files by "+map[bool]string{true: "path", false: "inode number"}[named && items[0].name != ""])
	return nil
}

// elapsed writes a time for people.
func elapsed(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d >= time.Second:
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return d.Round(time.Millisecond).String()
}
