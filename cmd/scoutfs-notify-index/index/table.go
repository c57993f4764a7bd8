// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"slices"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// table adds up accesses in memory. The zero value is empty.
type table struct {
	at      map[uint64]uint32 // index in entries
	entries []Entry
}

func (t *table) add(rec *notify.Record) {
	e := access(rec)
	t.addEntry(&e)
}

func (t *table) addEntry(e *Entry) {
	if i, ok := t.at[e.Ino]; ok {
		t.entries[i].add(e)
		return
	}
	if t.at == nil {
		t.at = make(map[uint64]uint32)
	}
	t.at[e.Ino] = uint32(len(t.entries))
	t.entries = append(t.entries, *e)
}

// sorted returns the entries by inode number.
func (t *table) sorted() []Entry {
	// Numbers are moved instead of entries, which are large.
	type key struct {
		ino uint64
		i   uint32
	}
	keys := make([]key, len(t.entries))
	for i := range t.entries {
		keys[i] = key{t.entries[i].Ino, uint32(i)}
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Compare(a.ino, b.ino) })
	out := make([]Entry, len(keys))
	for i, k := range keys {
		out[i] = t.entries[k.i]
	}
	return out
}
