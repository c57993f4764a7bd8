// SPDX-License-Identifier: GPL-2.0-only

package tally

import (
	"cmp"
	"slices"
)

// table has an entry for each key, or as many as there is room for.
type table[K comparable] struct {
	rows map[K]*entry
	rest entry // of keys that have none
	max  int
}

func newTable[K comparable](rows int) table[K] {
	return table[K]{rows: make(map[K]*entry), max: rows, rest: entry{rest: true}}
}

// get returns the entry for a key, which is the rest's if there is no room for another.
func (t *table[K]) get(k K) *entry {
	e := t.rows[k]
	if e == nil {
		if len(t.rows) == t.max {
			return &t.rest
		}
		e = new(entry)
		t.rows[k] = e
	}
	return e
}

// next ends an interval. If half of the room is used up it makes room: a quarter of it
// goes to the entries that have most in all, a quarter to those that were accessed last.
func (t *table[K]) next(interval int, seconds float64) {
	for _, e := range t.rows {
		e.next(interval, seconds)
	}
	if len(t.rows) > t.max/2 {
		t.trim()
	}
	t.rest.next(interval, seconds)
}

func (t *table[K]) trim() {
	type item struct {
		key K
		*entry
	}
	all := make([]item, 0, len(t.rows))
	for k, e := range t.rows {
		all = append(all, item{k, e})
	}
	most := func(a, b item) int {
		return cmp.Or(cmp.Compare(b.total.Bytes, a.total.Bytes), cmp.Compare(b.total.Events(), a.total.Events()))
	}
	slices.SortFunc(all, most)
	all = all[t.max/4:]
	slices.SortFunc(all, func(a, b item) int { return cmp.Or(cmp.Compare(b.active, a.active), most(a, b)) })
	for _, i := range all[t.max/4:] {
		// What it had in the interval that is just over is the rest's in that, too.
		t.rest.current.plus(i.last)
		t.rest.total.plus(i.total)
		delete(t.rows, i.key)
	}
}
