// SPDX-License-Identifier: GPL-2.0-only

// Package recording keeps the events of a stream in a file: what [notify.Follow] or
// [notify.Client.Events] yields, and what the numbers in it stood for at the time.
//
// A file starts with a header of 16 bytes:
//
//	 0  8  magic "\x89SNREC\r\n"
//	 8  4  version of the format, 1
//	12  4  0x01020304 in the byte order of the machine that made it
//
// Blocks follow. Each is compressed by itself and written at once, so that whoever ends
// the program that writes it cuts off one block at most. A block has a header of 40 bytes:
//
//	 0  4  magic "SNBK"
//	 4  4  bytes of the payload that follows
//	 8  4  events in it; 0 marks an orderly end
//	12  4  bytes of it when decompressed
//	16  8  mount (rid), and
//	24  8  last number that is told by this block and all before it
//	32  4  CRC-32C of the 32 bytes before and of the payload
//	36  4  0
//
// The payload is a zstd frame: the 64 bytes of each event as on the daemon's socket, and
// then the names that belong to them. A name is a byte with its [Kind], the number that it
// stands for (8 bytes), and a text after its length (2 bytes). Numbers are in the byte
// order that the file's header shows. After an orderly end more blocks may follow, and so
// may another header: recordings can be put together with cat(1).
package recording

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Errors of reading, to be tested for with [errors.Is].
var (
	// ErrFormat: the file is not a recording.
	ErrFormat = errors.New("not a recording of scoutfs-notify")

	// ErrVersion: a newer release has made the recording, or a machine with another
	// byte order.
	ErrVersion = errors.New("a recording that this release cannot read")

	// ErrDamaged: a part of the recording is not what was written.
	ErrDamaged = errors.New("the recording is damaged")

	// ErrUnfinished: the recording goes on, or what made it was killed, or the file was
	// cut off. All whole blocks have been read.
	ErrUnfinished = errors.New("the recording has no end: it goes on, its recorder was killed, or the file was cut off")
)

const (
	magic      = "\x89SNREC\r\n"
	version    = 1
	orderMark  = 0x01020304
	headerSize = 16

	blockMagic      = "SNBK"
	blockHeaderSize = 40

	// blockEvents is how many events a block has at most.
	blockEvents = 4096

	// blockBytes is how large a block may be. Names of full length can end it early.
	blockBytes = 4 << 20
)

// Kind says what a name is of.
type Kind uint8

// The kinds. Readers skip others.
const (
	// Path: of the file with that inode number, from the root of the file system,
	// without a slash at its start.
	Path Kind = 1
	// Unlinked: the file with that inode number has no name. The text is "unlinked".
	Unlinked Kind = 2
	// Command: the name of the process with that number.
	Command Kind = 3
	// User and Group: the names of the user and the group with that number.
	User  Kind = 4
	Group Kind = 5
)

var (
	ne     = binary.NativeEndian
	castag = crc32.MakeTable(crc32.Castagnoli)
)

// block is a block's header.
type block struct {
	size, count, raw uint32
	place            notify.Resume
}

func (b *block) append(to, payload []byte) []byte {
	start := len(to)
	to = append(to, blockMagic...)
	to = ne.AppendUint32(to, b.size)
	to = ne.AppendUint32(to, b.count)
	to = ne.AppendUint32(to, b.raw)
	to = ne.AppendUint64(to, uint64(b.place.RID))
	to = ne.AppendUint64(to, b.place.Seq)
	to = ne.AppendUint32(to, checksum(to[start:], payload))
	to = ne.AppendUint32(to, 0)
	return append(to, payload...)
}

// parseBlock returns a block's header, which must be sound.
func parseBlock(h []byte) (b block, ok bool) {
	b = block{
		size: ne.Uint32(h[4:]), count: ne.Uint32(h[8:]), raw: ne.Uint32(h[12:]),
		place: notify.Resume{RID: notify.ID(ne.Uint64(h[16:])), Seq: ne.Uint64(h[24:])},
	}
	ok = string(h[:4]) == blockMagic && ne.Uint32(h[36:]) == 0 && b.size <= blockBytes &&
		b.count <= blockEvents && b.raw <= blockBytes && b.count*notify.RecordSize <= b.raw
	return b, ok
}

// intact tells whether the payload is the one of the header.
func intact(header, payload []byte) bool {
	return ne.Uint32(header[32:]) == checksum(header[:32], payload)
}

func checksum(header, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(header, castag), castag, payload)
}

func appendHeader(to []byte) []byte {
	to = append(to, magic...)
	to = ne.AppendUint32(to, version)
	return ne.AppendUint32(to, orderMark)
}

// checkHeader returns an error if a file that starts so cannot be read.
func checkHeader(h []byte) error {
	switch {
	case string(h[:8]) != magic:
		return ErrFormat
	case ne.Uint32(h[12:]) != orderMark:
		return errors.Join(ErrVersion, errors.New("a machine with another byte order has made it"))
	case ne.Uint32(h[8:]) != version:
		return errors.Join(ErrVersion, errors.New("a newer release of scoutfs-notify has made it"))
	}
	return nil
}

// place follows where a stream is, as [notify.Resume] needs it: so that nothing that is
// missed goes untold if it breaks off at any point.
type place struct {
	notify.Resume
	hello *notify.Hello // of the connection, nil before the first
	rid   notify.ID     // of the connection
	told  uint64        // the last number that is accounted for in it; another mount has its own
}

// again returns what the connection's Hello would be now, nil if there was none.
func (p *place) again() *notify.Hello {
	if p.hello == nil {
		return nil
	}
	h := *p.hello
	h.Time = time.Now()
	if p.told > 0 { // or it is as unknown as it was
		h.Next = p.told + 1
	}
	return &h
}

func (p *place) follow(ev notify.Event) {
	switch ev := ev.(type) {
	case *notify.Hello:
		h := *ev
		p.hello, p.rid, p.told = &h, ev.RID, max(ev.Next, 1)-1
		if p.RID != 0 {
			return // a loss may follow, which must not be forgotten
		}
	case *notify.Record:
		p.told = max(p.told, ev.Seq)
	case *notify.Lost:
		p.told = max(p.told, ev.Last)
	case *notify.Idle:
		p.told = max(p.told, ev.Seq)
	case *notify.End:
		p.told = max(p.told, ev.Seq)
	}
	p.Resume = notify.Resume{RID: p.rid, Seq: p.told}
}
