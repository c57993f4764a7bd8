// SPDX-License-Identifier: GPL-2.0-only

package index

import "io"

// source yields entries in the order of their numbers, each number once, then io.EOF.
type source interface {
	read(e *Entry) error
}

// sliceSource yields entries that are sorted already.
type sliceSource []Entry

func (s *sliceSource) read(e *Entry) error {
	if len(*s) == 0 {
		return io.EOF
	}
	*e, *s = (*s)[0], (*s)[1:]
	return nil
}

// merger yields what several sources say of each inode as one entry. Where two have an
// access in the same millisecond, that of the later source is the last.
type merger struct {
	heap []head // the least inode first, and of those the earliest source
}

type head struct {
	Entry
	order int
	from  source
}

func (h *head) before(o *head) bool {
	return h.Ino < o.Ino || h.Ino == o.Ino && h.order < o.order
}

func newMerger(sources []source) (*merger, error) {
	m := &merger{}
	for i, s := range sources {
		h := head{order: i, from: s}
		switch err := s.read(&h.Entry); err {
		case nil:
			m.heap = append(m.heap, h)
		case io.EOF:
		default:
			return nil, err
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.sink(i)
	}
	return m, nil
}

// sink restores the order below i.
func (m *merger) sink(i int) {
	h := m.heap
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].before(&h[c]) {
			c++
		}
		if !h[c].before(&h[i]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

func (m *merger) read(e *Entry) error {
	if len(m.heap) == 0 {
		return io.EOF
	}
	*e = m.heap[0].Entry
	if err := m.advance(); err != nil {
		return err
	}
	for len(m.heap) > 0 && m.heap[0].Ino == e.Ino {
		e.add(&m.heap[0].Entry)
		if err := m.advance(); err != nil {
			return err
		}
	}
	return nil
}

// advance takes the next entry of the source that was first.
func (m *merger) advance() error {
	top := &m.heap[0]
	switch err := top.from.read(&top.Entry); err {
	case nil:
	case io.EOF:
		last := len(m.heap) - 1
		m.heap[0] = m.heap[last]
		m.heap = m.heap[:last]
	default:
		return err
	}
	m.sink(0)
	return nil
}
