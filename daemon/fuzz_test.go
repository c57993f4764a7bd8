// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// FuzzReceive sends packets over a socket. In the data, a byte with its length precedes
// each packet; the highest bit of that adds a descriptor. A client may only send one
// good request.
func FuzzReceive(f *testing.F) {
	good := packet(notify.Version1, 7)
	f.Add(append([]byte{8}, good...))
	f.Add(append(append([]byte{8}, good...), append([]byte{8}, good...)...))
	f.Add(append([]byte{8 | 0x80}, good...))
	f.Add(append([]byte{9}, append(good, 0)...))
	f.Add(append([]byte{100}, make([]byte, 100)...))
	f.Add([]byte{0})
	f.Add([]byte{3, 1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(sv[0])
		defer unix.Close(sv[1])
		c := newClient(sv[0], 1, 1, slog.New(slog.DiscardHandler))
		for len(data) > 0 {
			n, rights := int(data[0]&0x7f), data[0]&0x80 != 0
			data = data[1:]
			pkt := data[:min(n, len(data))]
			data = data[len(pkt):]

			var oob []byte
			if rights {
				oob = unix.UnixRights(sv[1])
			}
			if err := unix.Sendmsg(sv[1], pkt, oob, nil, unix.MSG_DONTWAIT); err != nil {
				t.Fatal(err)
			}
			var req notify.Request
			allowed := req.UnmarshalBinary(pkt) == nil && !rights && !c.asked
			err := c.receive()
			if allowed != (err == nil) || !allowed && !errors.Is(err, notify.ErrRequest) {
				t.Fatalf("packet %x, descriptor %v: %v", pkt, rights, err)
			}
			if !allowed {
				return
			}
			if c.req.MaxRecords != req.MaxRecords {
				t.Fatalf("packet %x asked for %d records, not %d", pkt, req.MaxRecords, c.req.MaxRecords)
			}
		}
		if err := c.receive(); err != nil {
			t.Fatalf("with nothing to receive: %v", err)
		}
		unix.Shutdown(sv[1], unix.SHUT_WR)
		if err := c.receive(); err != errHalfClosed {
			t.Fatalf("half-closed: %v", err)
		}
	})
}
