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
	// maxUsers is how many users are told apart. The rest is one.
	maxUsers = 4096

	// shownUsers is how many have a colour of their own.
	shownUsers = 8

	// whoColumns is how many columns are drawn at most.
	whoColumns = 220
)

// userStyle has a colour for each user that is shown, which people with any sight can tell
// apart, and one for the rest.
const userStyle = `
.u0{fill:#0072b2} .u1{fill:#e69f00} .u2{fill:#009e73} .u3{fill:#cc79a7} .u4{fill:#56b4e9} .u5{fill:#d55e00} .u6{fill:#b3a100} .u7{fill:#7d5ba6} .u8{fill:#818b98}
`

// Who shows how much each user read, by time.
type Who struct {
	names Names
	t     timeline
	users map[uint32]*user
	rest  user
	bytes uint64
}

type user struct {
	name    string
	bytes   uint64
	columns [maxColumns]uint64
}

// NewWho makes such a picture.
func NewWho(names Names) *Who {
	w := &Who{names: names, users: make(map[uint32]*user)}
	w.t.fold = func() {
		w.rest.fold()
		for _, u := range w.users {
			u.fold()
		}
	}
	return w
}

func (u *user) fold() {
	for c := range maxColumns / 2 {
		u.columns[c] = u.columns[2*c] + u.columns[2*c+1]
	}
	clear(u.columns[maxColumns/2:])
}

// Add is [Picture.Add].
func (w *Who) Add(ev notify.Event) {
	column := w.t.add(ev)
	r, ok := ev.(*notify.Record)
	if !ok || r.Type != notify.TypeRead {
		return
	}
	u := w.users[r.UID]
	if u == nil {
		u = &w.rest
		if len(w.users) < maxUsers {
			u = &user{name: cmp.Or(w.names.user(r.UID), strconv.FormatUint(uint64(r.UID), 10))}
			w.users[r.UID] = u
		}
	}
	u.bytes += r.Length
	u.columns[column] += r.Length
	w.bytes += r.Length
}

// Draw is [Picture.Draw].
func (w *Who) Draw(out io.Writer, title string) error {
	all := make([]*user, 0, len(w.users)+1)
	for _, u := range w.users {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b *user) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.name, b.name)) })
	what := fmt.Sprintf("%s read by %s", size(w.bytes), count(uint64(len(w.users)), "user", "users"))
	if len(all) > shownUsers || w.rest.bytes > 0 {
		rest := w.rest
		rest.name = "others"
		for _, u := range all[min(shownUsers, len(all)):] {
			rest.bytes += u.bytes
			for c, v := range u.columns {
				rest.columns[c] += v
			}
		}
		all = append(all[:min(shownUsers, len(all))], &rest)
	}
	c := newCanvas(title, &w.t, what, w.bytes, userStyle)
	w.drawBars(c, all)
	w.t.drawLost(c)
	c.rect("frame", plotLeft, plotTop, plotWidth, plotHeight, "")
	w.t.drawTime(c)
	w.t.drawLostLegend(c)
	x, y := float64(plotLeft), float64(legendY)
	for i, u := range all {
		if i == 5 {
			x, y = plotLeft, legendY+20
		}
		c.swatch(fmt.Sprintf("u%d", min(i, shownUsers)), x, y, shortenEnd(u.name, 80)+"  "+size(u.bytes))
		x += plotWidth / 5
	}
	return c.finish(out)
}

// drawBars draws a bar for each column, or for several, with the users on top of each
// other.
func (w *Who) drawBars(c *canvas, all []*user) {
	columns := w.t.columns()
	if columns == 0 {
		return
	}
	per := (columns + whoColumns - 1) / whoColumns
	bars := (columns + per - 1) / per
	of := func(u *user, bar int) (sum uint64) {
		for _, v := range u.columns[bar*per : min((bar+1)*per, columns)] {
			sum += v
		}
		return sum
	}
	most := uint64(1)
	for bar := range bars {
		sum := uint64(0)
		for _, u := range all {
			sum += of(u, bar)
		}
		most = max(most, sum)
	}
	each := w.t.each.Seconds() * float64(per)
	top := niceSize(float64(most) / each) // bytes a second at the top
	for i := range 5 {
		y := plotTop + plotHeight*(1-float64(i)/4)
		c.line("grid", plotLeft, y, plotLeft+plotWidth, y)
		c.text("end", plotLeft-9, y+4, size(uint64(top*float64(i)/4))+"/s")
	}
	wide := plotWidth / (float64(columns) / float64(per))
	base := make([]float64, bars)
	for i, u := range all {
		var path strings.Builder
		for bar := range bars {
			tall := plotHeight * float64(of(u, bar)) / each / top
			if tall == 0 {
				continue
			}
			x := plotLeft + float64(bar)*wide
			y := plotTop + plotHeight - base[bar] - tall
			fmt.Fprintf(&path, "M%.1f %.1fh%.1fv%.1fh-%.1fz", x, y, min(wide+0.2, plotLeft+plotWidth-x), tall, min(wide+0.2, plotLeft+plotWidth-x))
			base[bar] += tall
		}
		c.printf(`<path class="u%d" d="%s"><title>%s</title></path>`+"\n", min(i, shownUsers), &path, escape(u.name+": "+size(u.bytes)))
	}
	c.text("dim", 10, plotTop-14, fmt.Sprintf("read, in each %v", time.Duration(per)*w.t.each))
}
