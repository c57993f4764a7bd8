// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"slices"
)

// levels is how many colours a scale has. Level 0 is the least.
const levels = 9

// scale has a colour for each level: on a light ground the most is the darkest, on a dark
// one the brightest.
var scale = struct{ light, dark [levels]color.RGBA }{
	light: ramp(color.RGBA{0xcc, 0xe3, 0xf5, 255}, color.RGBA{0x3d, 0x8f, 0xc9, 255}, color.RGBA{0x0a, 0x1f, 0x5c, 255}),
	dark:  ramp(color.RGBA{0x17, 0x32, 0x5c, 255}, color.RGBA{0x2f, 0x86, 0xc6, 255}, color.RGBA{0xd8, 0xf6, 0xff, 255}),
}

// ramp goes from one colour over another to a third.
func ramp(from, over, to color.RGBA) (colours [levels]color.RGBA) {
	mix := func(a, b uint8, part float64) uint8 { return uint8(float64(a) + (float64(b)-float64(a))*part + 0.5) }
	for i := range colours {
		a, b, part := from, over, 2*float64(i)/(levels-1)
		if part > 1 {
			a, b, part = over, to, part-1
		}
		colours[i] = color.RGBA{mix(a.R, b.R, part), mix(a.G, b.G, part), mix(a.B, b.B, part), 255}
	}
	return colours
}

// scaleStyle has the scale as classes l0, l1 and so on.
func scaleStyle() string {
	var b bytes.Buffer
	for i, c := range scale.light {
		fmt.Fprintf(&b, ".l%d { fill: #%02x%02x%02x } ", i, c.R, c.G, c.B)
	}
	b.WriteString("\n@media (prefers-color-scheme: dark) { ")
	for i, c := range scale.dark {
		fmt.Fprintf(&b, ".l%d { fill: #%02x%02x%02x } ", i, c.R, c.G, c.B)
	}
	b.WriteString("}\n")
	return b.String()
}

// limits divides values above 0 into levels with about as many in each: limits[i] is the
// most that is in level i. A linear or logarithmic scale would show one of the many shapes
// that such values have.
func limits(values []uint64) (limits [levels]uint64) {
	values = slices.DeleteFunc(slices.Clone(values), func(v uint64) bool { return v == 0 })
	if len(values) == 0 {
		return limits
	}
	slices.Sort(values)
	for i := range limits {
		limits[i] = values[(i+1)*len(values)/levels-min(1, (i+1)*len(values)/levels)]
	}
	return limits
}

// level is the one that a value above 0 is in.
func level(limits *[levels]uint64, v uint64) int {
	i, _ := slices.BinarySearch(limits[:], v)
	return min(i, levels-1)
}

// grid is a matrix of values, row 0 at the bottom.
type grid struct {
	columns, rows int
	cells         []uint64
}

func newGrid(columns, rows int) *grid {
	return &grid{columns, rows, make([]uint64, columns*rows)}
}

func (g *grid) at(column, row int) *uint64 { return &g.cells[row*g.columns+column] }

// draw draws the grid over the whole plot, and the legend below it. unit writes a value.
func (g *grid) draw(c *canvas, cell string, unit func(uint64) string) error {
	lim := limits(g.cells)
	img := image.NewPaletted(image.Rect(0, 0, g.columns, g.rows), nil)
	for row := range g.rows {
		for column := range g.columns {
			if v := *g.at(column, row); v > 0 {
				img.SetColorIndex(column, g.rows-1-row, uint8(1+level(&lim, v)))
			}
		}
	}
	for _, look := range []struct {
		class   string
		colours [levels]color.RGBA
	}{{"light", scale.light}, {"dark", scale.dark}} {
		img.Palette = color.Palette{color.RGBA{}}
		for _, rgba := range look.colours {
			img.Palette = append(img.Palette, rgba)
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			return fmt.Errorf("draw a picture: %w", err)
		}
		c.printf(`<image class="%s" x="%d" y="%d" width="%d" height="%d" preserveAspectRatio="none" href="data:image/png;base64,%s"/>`+"\n",
			look.class, plotLeft, plotTop, plotWidth, plotHeight, base64.StdEncoding.EncodeToString(b.Bytes()))
	}
	drawScale(c, cell, func(i int) string { return "≤ " + unit(lim[i]) }, func(i int) bool { return i > 0 && lim[i] == lim[i-1] })
	return nil
}

// legendY is where legends are.
const legendY = height - 32

// drawScale draws a legend of the scale. A level that is the same as another is left out.
func drawScale(c *canvas, what string, text func(level int) string, skip func(level int) bool) {
	c.text("dim", plotLeft, legendY-22, what)
	x := float64(plotLeft)
	for i := range levels {
		if skip(i) {
			continue
		}
		x = c.swatch(fmt.Sprintf("l%d", i), x, legendY, text(i))
	}
}

// drawLostLegend says what hatches mean, if there are any.
func (t *timeline) drawLostLegend(c *canvas) { t.drawMissing(c, legendY-22, "records are missing") }

// drawMissing says that records are missing, if any are.
func (t *timeline) drawMissing(c *canvas, y float64, text string) {
	if t.losses() != "lost nothing" {
		x := plotLeft + plotWidth - 22 - textWidth(text)
		c.rect("lost", x, y-11, 14, 14, "")
		c.text("", x+20, y, text)
	}
}
