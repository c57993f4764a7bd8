// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Types of control records, which the daemon makes for clients of [Version2].
const (
	TypeHello Type = 0x8000 // see [Hello]
	TypeLost  Type = 0x8001 // see [Lost]
	TypeIdle  Type = 0x8002 // see [Idle]
	TypeEnd   Type = 0x8003 // see [End]
)

// IsControl tells whether a record is not of an access, but one that the daemon makes.
// A program should skip control records of types that it does not know.
func (t Type) IsControl() bool { return t&0x8000 != 0 }

// Event is what a stream tells: *[Record] for an access, *[Hello], *[Lost], *[Idle],
// *[End], or *[Waiting].
type Event interface{ event() }

func (*Record) event()  {}
func (*Hello) event()   {}
func (*Lost) event()    {}
func (*Idle) event()    {}
func (*End) event()     {}
func (*Waiting) event() {}

// Device is the number of a mounted file system's device, as stat(2) and
// proc_pid_mountinfo(5) show it. No two file systems that are mounted at the same time
// have the same. The zero value is not known.
type Device struct{ Major, Minor uint32 }

// String returns major:minor.
func (d Device) String() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// MarshalText returns the same as String.
func (d Device) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses what String returns, and nothing else.
func (d *Device) UnmarshalText(b []byte) error {
	var v Device
	if _, err := fmt.Sscanf(string(b), "%d:%d", &v.Major, &v.Minor); err != nil || v.String() != string(b) {
		return fmt.Errorf("parse device number %q: not two numbers with a colon between", b)
	}
	*d = v
	return nil
}

// Hello starts a stream. It says whose it is: numbers can be compared only between
// streams of the same RID.
type Hello struct {
	// Next is the number of the next access. Each number from Next on is either in a
	// Record or in a Lost that follows, or was filtered out. 0 if the daemon cannot
	// tell, because the kernel module is older than that and no access was recorded so
	// far; the first record is not preceded by a loss then.
	Next uint64 `json:"next"`

	Time        time.Time `json:"time"`         // of the daemon's clock
	FSID        ID        `json:"fsid"`         // of the file system
	RID         ID        `json:"rid"`          // of the mount
	DaemonStart time.Time `json:"daemon_start"` // of the process
	ReaderStart time.Time `json:"reader_start"` // when it attached to this mount
	Device      Device    `json:"device"`       // of the mount
	Version     uint32    `json:"version"`      // of the protocol
}

// Cause says where records were lost. It is a set: losses in a row are told as one.
type Cause uint32

// The causes.
const (
	// LostKernel: the ring was full; the daemon got no processor time.
	LostKernel Cause = 1 << iota
	// LostQueue: this client did not read fast enough.
	LostQueue
	// LostAway: this client was not connected; see [Request.Resume].
	LostAway
	// LostUnattended: no daemon was attached to the mount. What was accessed then was
	// not even numbered.
	LostUnattended
)

var causeNames = []string{"kernel", "queue", "away", "unattended"}

// String returns the names of the causes, as in "kernel+queue".
func (c Cause) String() string {
	var names []string
	for i, name := range causeNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := c &^ (1<<len(causeNames) - 1); rest != 0 || c == 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, "+")
}

// MarshalText returns the same as String.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Lost says that accesses are missing from the stream. It comes as soon as the daemon
// knows, and always before the record that follows the loss.
type Lost struct {
	// First and Last are the numbers between which the accesses are missing, and which
	// are not in any record. Both are 0 if there are none, see Unknown.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`

	// Count is how many accesses are missing. Without AtMost and Unknown that is exact.
	Count uint64 `json:"count"`

	// AtMost: some of the Count may have been such that the client's filter leaves
	// them out. Nobody knows: their records are lost.
	AtMost bool `json:"at_most"`

	// Unknown: there may be any number besides, which nobody counted.
	Unknown bool `json:"unknown"`

	Cause Cause     `json:"cause"`
	Time  time.Time `json:"time"` // when the daemon told it: what Count counts was before
}

// String describes the loss for people, as in "lost 17 records (queue)".
func (l *Lost) String() string {
	noun := "records"
	if l.Count == 1 {
		noun = "record"
	}
	switch {
	case l.Count == 0:
		return fmt.Sprintf("may have lost any number of records (%v)", l.Cause)
	case l.Unknown:
		return fmt.Sprintf("lost %d %s, and maybe any number besides (%v)", l.Count, noun, l.Cause)
	case l.AtMost:
		return fmt.Sprintf("lost at most %d %s (%v)", l.Count, noun, l.Cause)
	}
	return fmt.Sprintf("lost %d %s (%v)", l.Count, noun, l.Cause)
}

// Idle says that the stream is alive: all accesses up to Seq, and all that were made
// before Time, have been told.
type Idle struct {
	Seq  uint64    `json:"seq"` // 0 if no number is known yet
	Time time.Time `json:"time"`
}

// Reason says why a stream ended.
type Reason uint32

// The reasons.
const (
	EndUnmounted   Reason = 1 // the file system was unmounted
	EndStopping    Reason = 2 // the daemon was told to stop
	EndRestarting  Reason = 3 // the daemon was told to stop, and will be back
	EndFailed      Reason = 4 // the daemon failed; its log says why
	EndProbe       Reason = 5 // as the request asked
	EndMaxClients  Reason = 6 // turned away: as many clients as may be
	EndCredentials Reason = 7 // turned away: not the daemon's user
	EndResources   Reason = 8 // turned away: out of descriptors or memory
	EndProtocol    Reason = 9 // the client broke the protocol
)

var reasonTexts = map[Reason]string{
	EndUnmounted:   "the file system was unmounted",
	EndStopping:    "scoutfs-notifyd was stopped",
	EndRestarting:  "scoutfs-notifyd is restarting",
	EndFailed:      "scoutfs-notifyd failed",
	EndProbe:       "the client asked for no more",
	EndMaxClients:  "scoutfs-notifyd has as many clients as it may",
	EndCredentials: "only the daemon's user, root of the host, may connect",
	EndResources:   "scoutfs-notifyd is out of descriptors or memory",
	EndProtocol:    "the client broke the protocol",
}

// String says the reason for people.
func (r Reason) String() string {
	if text, ok := reasonTexts[r]; ok {
		return text
	}
	return fmt.Sprintf("reason %d", uint32(r))
}

// MarshalText returns the same as String.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// refusal tells whether the daemon turned the client away.
func (r Reason) refusal() bool { return r >= EndMaxClients && r <= EndProtocol }

// End is the last of a stream. A stream that ends without it has broken off: the daemon
// was killed, and what it had not sent is lost.
type End struct {
	Seq    uint64    `json:"seq"` // all numbers up to this have been told; 0 if none is known
	Reason Reason    `json:"reason"`
	Time   time.Time `json:"time"` // when the daemon said it, after it had detached
}

// Flags of a control record.
const (
	flagAtMost  = 1 << 0
	flagUnknown = 1 << 1
)

// control is the layout of all control records.
type control struct {
	seq, time uint64
	args      [4]uint64
	a, b      uint32
	code      uint32
	typ       Type
	flags     uint16
}

func (c *control) append(b []byte) []byte {
	ne := binary.NativeEndian
	b = ne.AppendUint64(b, c.seq)
	b = ne.AppendUint64(b, c.time)
	for _, v := range c.args {
		b = ne.AppendUint64(b, v)
	}
	b = ne.AppendUint32(b, c.a)
	b = ne.AppendUint32(b, c.b)
	b = ne.AppendUint32(b, c.code)
	b = ne.AppendUint16(b, uint16(c.typ))
	return ne.AppendUint16(b, c.flags)
}

// AppendBinary appends the record's 64 bytes to b. The error is always nil.
func (h *Hello) AppendBinary(b []byte) ([]byte, error) {
	c := control{
		seq: h.Next, time: unixNano(h.Time), typ: TypeHello, code: h.Version, a: h.Device.Major, b: h.Device.Minor,
		args: [4]uint64{uint64(h.FSID), uint64(h.RID), unixNano(h.DaemonStart), unixNano(h.ReaderStart)},
	}
	return c.append(b), nil
}

// AppendBinary appends the record's 64 bytes to b. The error is always nil.
func (l *Lost) AppendBinary(b []byte) ([]byte, error) {
	c := control{seq: l.First, time: unixNano(l.Time), typ: TypeLost, code: uint32(l.Cause), args: [4]uint64{l.Last, l.Count}}
	if l.AtMost {
		c.flags |= flagAtMost
	}
	if l.Unknown {
		c.flags |= flagUnknown
	}
	return c.append(b), nil
}

// AppendBinary appends the record's 64 bytes to b. The error is always nil.
func (i *Idle) AppendBinary(b []byte) ([]byte, error) {
	c := control{seq: i.Seq, time: unixNano(i.Time), typ: TypeIdle}
	return c.append(b), nil
}

// AppendBinary appends the record's 64 bytes to b. The error is always nil.
func (e *End) AppendBinary(b []byte) ([]byte, error) {
	c := control{seq: e.Seq, time: unixNano(e.Time), typ: TypeEnd, code: uint32(e.Reason)}
	return c.append(b), nil
}

// Control returns the control record that a Record's 64 bytes are, or nil for an access
// and for a type that this package does not know.
func (r *Record) Control() Event {
	switch r.Type {
	case TypeHello:
		return &Hello{
			Next: r.Seq, Time: r.Time(), FSID: ID(r.Ino), RID: ID(r.Offset),
			DaemonStart: nanoTime(r.Length), ReaderStart: nanoTime(uint64At(r.PID, r.TID)),
			Device: Device{r.UID, r.GID}, Version: r.OpenFlags,
		}
	case TypeLost:
		return &Lost{
			First: r.Seq, Last: r.Ino, Count: r.Offset, Cause: Cause(r.OpenFlags),
			AtMost: r.Flags&flagAtMost != 0, Unknown: r.Flags&flagUnknown != 0, Time: r.Time(),
		}
	case TypeIdle:
		return &Idle{Seq: r.Seq, Time: r.Time()}
	case TypeEnd:
		return &End{Seq: r.Seq, Reason: Reason(r.OpenFlags), Time: r.Time()}
	}
	return nil
}

// uint64At returns the number of 64 bits that lies where two of 32 bits are.
func uint64At(first, second uint32) uint64 {
	var b [8]byte
	binary.NativeEndian.PutUint32(b[:], first)
	binary.NativeEndian.PutUint32(b[4:], second)
	return binary.NativeEndian.Uint64(b[:])
}

// unixNano returns a time as in time_ns, 0 for the zero time.
func unixNano(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func nanoTime(ns uint64) time.Time {
	r := Record{TimeNS: ns}
	return r.Time()
}
