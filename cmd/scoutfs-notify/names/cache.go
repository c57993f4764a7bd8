// SPDX-License-Identifier: GPL-2.0-only

package names

// cache keeps what was used last, by inode number: at least size entries and at most
// twice as many. It is two maps, of which the older is dropped when the newer is full:
// cheaper than a list in the order of use, for a hit writes nothing.
type cache struct {
	size       int
	newer, old map[uint64]component
}

func newCache(size int) *cache { return &cache{size: size, newer: make(map[uint64]component)} }

func (c *cache) get(ino uint64) (component, bool) {
	if v, ok := c.newer[ino]; ok {
		return v, true
	}
	v, ok := c.old[ino]
	if ok {
		c.put(ino, v)
	}
	return v, ok
}

func (c *cache) put(ino uint64, v component) {
	if _, ok := c.newer[ino]; !ok && len(c.newer) == c.size {
		c.newer, c.old = make(map[uint64]component, c.size), c.newer
	}
	c.newer[ino] = v
}

func (c *cache) remove(ino uint64) {
	delete(c.newer, ino)
	delete(c.old, ino)
}

func (c *cache) len() int { return len(c.newer) + len(c.old) }
