// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// script is a stream of batches that move a fake clock.
type script struct {
	now   time.Time
	until time.Time // deadline
	steps []step
	lost  uint64
}

// step is a batch and the time it takes. Without records it waits until the deadline.
type step struct {
	takes time.Duration
	recs  []notify.Record
	lost  uint64

	before func() // unless nil, called first
}

func (s *script) ReadBatch() ([]notify.Record, error) {
	if len(s.steps) == 0 {
		return nil, io.EOF
	}
	st := s.steps[0]
	if st.before != nil {
		st.before()
	}
	if st.recs == nil {
		s.steps = s.steps[1:]
		s.now = s.until
		return nil, os.ErrDeadlineExceeded
	}
	s.steps = s.steps[1:]
	s.now = s.now.Add(st.takes)
	s.lost += st.lost
	return st.recs, nil
}

func (s *script) SetReadDeadline(t time.Time) error {
	s.until = t
	return nil
}

func (s *script) Lost() uint64 { return s.lost }

// A record is as old as the script.
const scriptStart = 1700000000

func open(ino uint64, pid, uid uint32) notify.Record {
	return notify.Record{Type: notify.TypeOpen, TimeNS: scriptStart * 1e9, Ino: ino, PID: pid, UID: uid}
}

func read(ino uint64, pid, uid uint32, length uint64) notify.Record {
	return notify.Record{Type: notify.TypeRead, TimeNS: scriptStart * 1e9, Ino: ino, PID: pid, UID: uid, Length: length}
}

func TestTop(t *testing.T) {
	proc := newFakeProc(t)
	proc.add(20, "evil\x1b[2J, too long", time.Minute)
	first := []notify.Record{
		open(100, 10, 1000), read(100, 10, 1000, 1<<20), read(100, 10, 1000, 1<<20),
		open(200, 20, 0), open(200, 20, 0), open(200, 20, 0), open(200, 20, 0), read(200, 20, 0, 100),
		{Type: 77, Ino: 300, PID: 10, UID: 1000},
	}
	for _, tt := range []struct {
		name    string
		by      string
		sort    string
		rows    int
		height  int
		count   uint64
		steps   []step
		want    string
		wantErr error
	}{
		{"inode", "inode", "bytes", 20, 0, 0, []step{{takes: time.Second, recs: first}, {}, {takes: time.Second, recs: []notify.Record{open(100, 1, 1)}, lost: 7}},
			`22:13:22  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
0 lost, 3 shown of 3
               INODE    OPENS/S    READS/S      BYTES/S
                 100        0.5        1.0      1.0 MiB
                 200        2.0        0.5       50.0 B
                 300        0.0        0.0        0.0 B

22:13:23  /mnt  1.0 opens/s  0.0 reads/s  0.0 B/s
7 lost, 1 shown of 1
               INODE    OPENS/S    READS/S      BYTES/S
                 100        1.0        0.0        0.0 B
`, io.EOF},
		{"process", "process", "events", 20, 0, 1, []step{{takes: 2 * time.Second, recs: first}, {}},
			`22:13:22  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
0 lost, 2 shown of 2
       PID        UID COMMAND            OPENS/S    READS/S      BYTES/S
        20          0 evil\x1b[2J, to        2.0        0.5       50.0 B
        10       1000 -                      0.5        1.0      1.0 MiB
`, nil},
		{"user, one row", "user", "bytes", 1, 0, 1, []step{{takes: 4 * time.Second, recs: first}},
			`22:13:24  /mnt  1.2 opens/s  0.8 reads/s  512.0 KiB/s
0 lost, 1 shown of 2
       UID    OPENS/S    READS/S      BYTES/S
      1000        0.2        0.5    512.0 KiB
`, nil},
		{"terminal", "user", "events", 20, 6, 1, []step{{takes: 2 * time.Second, recs: first}},
			"\x1b[H22:13:22  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s\x1b[K\n" +
				"0 lost, 1 shown of 2\x1b[K\n" +
				"       UID    OPENS/S    READS/S      BYTES/S\x1b[K\n" +
				"         0        2.0        0.5       50.0 B\x1b[K\n\x1b[J", nil},
		{"idle", "inode", "bytes", 20, 0, 1, []step{{}},
			`22:13:22  /mnt  0.0 opens/s  0.0 reads/s  0.0 B/s
0 lost, 0 shown of 0
               INODE    OPENS/S    READS/S      BYTES/S
`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{now: time.Unix(scriptStart, 0), steps: tt.steps}
			var out bytes.Buffer
			env := &environment{now: func() time.Time { return s.now }, height: func() int { return tt.height }, proc: proc.dir, sinceBoot: proc.sinceBoot}
			top := &top{out: bufio.NewWriter(&out), env: env, mount: "/mnt", rows: tt.rows, key: keys[tt.by], compare: orders[tt.sort], rates: make(map[uint64]*rate)}
			if tt.by == "process" {
				top.processes = newProcesses(env)
			}
			if err := top.run(s, 2*time.Second, tt.count); !errors.Is(err, tt.wantErr) {
				t.Errorf("got error %v", err)
			}
			if out.String() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", &out, tt.want)
			}
		})
	}
}

// TestTopRest: accesses that exceed the table are summed up.
func TestTopRest(t *testing.T) {
	var recs []notify.Record
	for i := range uint64(maxRows + 10) {
		recs = append(recs, read(i, 1, 1, 1000))
	}
	s := &script{now: time.Unix(scriptStart, 0), steps: []step{{takes: time.Second, recs: recs}}}
	var out bytes.Buffer
	env := &environment{now: func() time.Time { return s.now }, height: func() int { return 0 }}
	top := &top{out: bufio.NewWriter(&out), env: env, mount: "/mnt", rows: 1, key: keys["inode"], compare: orders["bytes"], rates: make(map[uint64]*rate)}
	if err := top.run(s, time.Second, 1); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "\nand more: 0.0 opens/s  10.0 reads/s  9.8 KiB/s\n") {
		t.Errorf("got\n%s", &out)
	}
}

func TestTopCommand(t *testing.T) {
	socket := fakeDaemon(t, func(conn *net.UnixConn) { sendAll(conn, sampleRecords[0]) })
	status, stdout, stderr := runCommand("top", "-n", "1", "-interval", "10s", socket)
	if status != 0 || !strings.Contains(stderr, "the stream ended") || !strings.Contains(stdout, "\n                  42 ") {
		t.Errorf("exit status %d, output\n%s\n%s", status, stdout, stderr)
	}
}
