// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// fakeNow is when fake daemons say something.
var fakeNow = time.Unix(1700000002, 500).UTC()

// fakeHello is what a fake daemon says first, unless a test has it say otherwise.
var fakeHello = &notify.Hello{
	Next: 5, Time: fakeNow, FSID: statMount.FSID, RID: statMount.RID, Device: statMount.Device,
	DaemonStart: time.Unix(1700000000, 0).UTC(), ReaderStart: time.Unix(1700000001, 0).UTC(), Version: notify.Version2,
}

// fakeClient is a client of a fake daemon.
type fakeClient struct {
	*net.UnixConn
	req notify.Request
}

// say sends events in one packet. No events would be an empty packet, which ends the
// stream.
func (c *fakeClient) say(events ...notify.Event) {
	var b []byte
	for _, ev := range events {
		b, _ = ev.(encoding.BinaryAppender).AppendBinary(b)
	}
	if len(b) > 0 {
		c.Write(b)
	}
}

func records(recs ...notify.Record) []notify.Event {
	var events []notify.Event
	for i := range recs {
		events = append(events, &recs[i])
	}
	return events
}

// shortTempDir returns a folder whose path leaves room for that of a socket.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// fakeDaemon makes a socket like the daemon's, says hello to each client and calls serve
// for it. The connection ends when serve returns.
func fakeDaemon(t *testing.T, serve func(c *fakeClient)) (path string) {
	t.Helper()
	path = filepath.Join(shortTempDir(t), notify.SocketName)
	rawDaemon(t, path, func(c *fakeClient) {
		c.say(fakeHello)
		serve(c)
	})
	return path
}

// rawDaemon is a fakeDaemon that says no hello.
func rawDaemon(t *testing.T, path string, serve func(c *fakeClient)) {
	t.Helper()
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			c := &fakeClient{UnixConn: conn}
			var b [notify.RequestSize2 + 1]byte
			n, _ := conn.Read(b[:])
			if err := c.req.UnmarshalBinary(b[:n]); err == nil {
				serve(c)
			}
			conn.Close()
		}
	}()
}
