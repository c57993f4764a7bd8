// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify_test

import (
	"encoding"
	"log"
	"net"
	"os"
	"path/filepath"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// startDaemon stands in for scoutfs-notifyd in examples. Each connection gets the events
// of one stream, as far as its filter lets them through. It returns the socket.
func startDaemon(streams ...[]notify.Event) (socket string, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	socket = filepath.Join(dir, notify.SocketName)
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, events := range streams {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			send(conn, events)
			conn.Close()
		}
	}()
	return socket, func() {
		ln.Close()
		<-done
		os.RemoveAll(dir)
	}
}

func send(conn *net.UnixConn, events []notify.Event) {
	var pkt [notify.RequestSize2]byte
	n, err := conn.Read(pkt[:])
	var req notify.Request
	if err != nil || req.UnmarshalBinary(pkt[:n]) != nil {
		return
	}
	for _, ev := range events {
		if rec, ok := ev.(*notify.Record); ok && !req.Filter.Match(rec, uint32(os.Getpid())) {
			continue
		}
		b, _ := ev.(encoding.BinaryAppender).AppendBinary(nil)
		conn.Write(b)
	}
}
