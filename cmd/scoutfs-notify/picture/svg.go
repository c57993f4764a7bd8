// SPDX-License-Identifier: GPL-2.0-only

// Package picture draws what was read: SVG files that need nothing else, so that they open
// on a machine without a network, light or dark as whoever looks prefers.
//
// Each picture takes the events of a stream, one by one, and keeps what it will draw of
// them in bounded memory, however many there are.
package picture

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Picture is one that is being made. Only one goroutine may use it at a time.
type Picture interface {
	// Add takes an event into account. It keeps nothing of it.
	Add(ev notify.Event)

	// Draw writes the picture as SVG, below a title.
	Draw(w io.Writer, title string) error
}

// Names say what the numbers in records stand for, "" if it is not known. They are asked
// from within [Picture.Add], and not again for each record of what is known. A function that
// is nil knows nothing.
type Names struct {
	Path func(ino uint64) string // of a file, from the root of the file system
	User func(uid uint32) string
}

func (n Names) path(ino uint64) string {
	if n.Path == nil {
		return ""
	}
	return n.Path(ino)
}

func (n Names) user(uid uint32) string {
	if n.User == nil {
		return ""
	}
	return n.User(uid)
}

// The size of a picture and of the plot in it, in pixels.
const (
	width, height = 1000, 600

	plotLeft, plotTop     = 110, 90
	plotWidth, plotHeight = 860, 400
)

// style has both looks. A reader that knows no media queries shows the light one.
const style = `
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1f2328 }
.title { font-size: 18px; font-weight: 600 }
.dim { fill: #59636e }
.end { text-anchor: end } .mid { text-anchor: middle }
.back { fill: #ffffff } .frame { fill: none; stroke: #818b98 } .grid { stroke: #d1d9e0 }
.box { stroke: #ffffff } .line { fill: none; stroke: #0550ae; stroke-width: 2 } .bar { fill: #0550ae }
.hatch { stroke: #cf222e; stroke-width: 2 } .lost { fill: url(#hatch); stroke: #cf222e; stroke-opacity: .4 }
.dark { display: none } image { image-rendering: pixelated }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .dim { fill: #9198a1 } .back { fill: #0d1117 } .frame { stroke: #656c76 } .grid { stroke: #3d444d }
.box { stroke: #0d1117 } .line { stroke: #79c0ff } .bar { fill: #79c0ff }
.hatch { stroke: #ff7b72 } .lost { stroke: #ff7b72 }
.dark { display: inline } .light { display: none }
}
`

// canvas is an SVG in the making.
type canvas struct{ bytes.Buffer }

// newCanvas starts a picture with its title and a line below it that says when what was
// read, and what sets of colours it needs as classes. The exact sums are in its description:
// bytes is what the picture shows.
func newCanvas(title string, t *timeline, what string, bytes uint64, colours ...string) *canvas {
	c := new(canvas)
	c.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n",
		width, height, width, height, escape(title))
	c.printf("<desc>opens %d, reads %d, bytes %d, %s</desc>\n", t.opens, t.reads, bytes, escape(t.losses()))
	c.printf("<style>%s%s</style>\n", style, strings.Join(colours, ""))
	c.printf(`<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="8"/></pattern></defs>` + "\n")
	c.rect("back", 0, 0, width, height, "")
	c.text("title", plotLeft, 34, title)
	c.text("dim", plotLeft, 56, t.about(what))
	return c
}

func (c *canvas) printf(format string, a ...any) { fmt.Fprintf(c, format, a...) }

// text writes a text from anywhere.
func (c *canvas) text(class string, x, y float64, text string) {
	c.printf(`<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x, y, escape(text))
}

// rect draws a rectangle, with a text that shows when it is pointed at, unless that is "".
func (c *canvas) rect(class string, x, y, w, h float64, about string) {
	c.printf(`<rect class="%s" x="%.2f" y="%.2f" width="%.2f" height="%.2f"`, class, x, y, w, h)
	if about == "" {
		c.printf("/>\n")
		return
	}
	c.printf("><title>%s</title></rect>\n", escape(about))
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	c.printf(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

// swatch is a colour of a legend with its meaning. It returns where the next one can be.
func (c *canvas) swatch(class string, x, y float64, text string) float64 {
	c.rect(class, x, y-11, 14, 14, "")
	c.text("", x+20, y, text)
	return x + 33 + textWidth(text)
}

// finish writes the picture.
func (c *canvas) finish(w io.Writer) error {
	c.printf("</svg>\n")
	_, err := w.Write(c.Bytes())
	return err
}

// textWidth is about how wide a text is.
func textWidth(text string) float64 { return 6.6 * float64(len([]rune(text))) }

// shorten leaves out the start of a text that is too wide, because a path's end says more.
func shorten(text string, room float64) string {
	r := []rune(cli.Printable(text))
	if most := int(room / 6.6); len(r) > most {
		if most < 3 {
			return ""
		}
		return "…" + string(r[len(r)-most+1:])
	}
	return string(r)
}

// shortenEnd leaves out the end of a text that is too wide.
func shortenEnd(text string, room float64) string {
	r := []rune(cli.Printable(text))
	if most := int(room / 6.6); len(r) > most {
		if most < 4 {
			return ""
		}
		return string(r[:most-1]) + "…"
	}
	return string(r)
}

// escape makes a text from anywhere one of XML.
func escape(text string) string {
	return html.EscapeString(cli.Printable(text))
}
