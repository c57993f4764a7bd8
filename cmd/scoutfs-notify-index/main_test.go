// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const testFSID = notify.ID(0xabc)

var testNow = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// fakeMounted is a file system of three files that were written long ago; what was
// deleted has no path.
type fakeMounted struct{ seq *uint64 }

var fakePaths = map[uint64]string{1: "home/a/one", 2: "home/b/t\nwo", 3: "three"}

func (m fakeMounted) Walk(seq uint64, f func(uint64)) error {
	*m.seq = seq
	for _, ino := range []uint64{3, 1, 2, 4} {
		f(ino)
	}
	return nil
}

func (fakeMounted) Path(ino uint64) (string, error) {
	if p, ok := fakePaths[ino]; ok {
		return p, nil
	}
	return "", os.ErrNotExist
}

func (m fakeMounted) Owner(ino uint64) (uint32, int64, error) {
	_, err := m.Path(ino)
	return uint32(1000 + ino%2), int64(ino) * 100, err
}

func (m fakeMounted) Project(ino uint64) (uint64, error) { return ino % 2, nil }
func (fakeMounted) Close()                               {}

// testEnvironment is one with a store in which inode 1 was read now, inode 2 and the
// deleted 4 long ago, and inode 3 never. A loss is 50 days old.
func testEnvironment(t *testing.T) (env *environment, root string, out, errs func() string, seq *uint64) {
	t.Helper()
	root = t.TempDir()
	s, err := index.Open(filepath.Join(root, testFSID.String()), testFSID, index.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	day := func(n int) time.Time { return testNow.Add(-time.Duration(n) * 24 * time.Hour) }
	read := func(seq, ino uint64, at time.Time) *notify.Record {
		return &notify.Record{Seq: seq, Ino: ino, TimeNS: uint64(at.UnixNano()), Length: ino, UID: 1000, GID: 100, PID: 42, Type: notify.TypeRead}
	}
	var b []byte
	for _, ev := range []notify.Event{
		&notify.Hello{Next: 1, Time: day(100), FSID: testFSID, RID: 1, Version: notify.Version2},
		read(1, 2, day(99)), read(2, 4, day(98)), read(3, 1, day(60)),
		&notify.Lost{First: 4, Last: 44, Count: 41, Cause: notify.LostQueue, Time: day(50)},
		read(45, 1, testNow.Add(-time.Second)), &notify.Idle{Seq: 45, Time: testNow},
	} {
		b, _ = ev.(encoding.BinaryAppender).AppendBinary(b)
	}
	for _, n := range []index.Notice{{Host: "node1"}, {Sample: &index.Sample{Time: index.MillisOf(day(95)), Seq: 77}}} {
		if err := s.Look(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stderr.Close() })
	seq = new(uint64)
	env = &environment{
		stdout: &stdout, stderr: stderr, now: func() time.Time { return testNow },
		statfs: func(context.Context, string) (notify.Mount, error) { return notify.Mount{FSID: testFSID}, nil },
		open:   func(string) (mounted, error) { return fakeMounted{seq}, nil },
	}
	out = stdout.String
	errs = func() string {
		text, err := os.ReadFile(stderr.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	return env, root, out, errs, seq
}

func TestCommandLine(t *testing.T) {
	const observed = "node1: observed since 2026-08-19T12:00:00Z; 1 gap, ended 2026-10-08T12:00:01Z, 41 lost\n"
	mount := mountPoint("/mnt")
	for _, tt := range []struct {
		name   string
		args   string
		status int
		stdout string // all of it, with MOUNT for the mount point; "-" for any
		stderr string // part of it
	}{
		{"nothing", "", 64, "", "a command is missing"},
		{"unknown", "melt /mnt", 64, "", `there is no command "melt"`},
		{"help", "-help", 0, "-", ""},
		{"help of a command", "help cold", 0, "-", ""},
		{"version", "-version", 0, "-", ""},

		{"cold", "cold -older 90d /mnt", 0, "2026-08-20T12:00:00Z ino 2 by uid 1000\nnot while observed   ino 3\n2026-08-21T12:00:00Z ino 4 by uid 1000\n", observed},
		{"cold since", "cold -older 2026-08-29T12:00:00Z /mnt", 0, "-", "3 of 4 files"},
		{"cold paths", "cold -older 12w -paths /mnt", 0, "2026-08-20T12:00:00Z ino 2 by uid 1000 MOUNT/home/b/t\\x0awo\nnot while observed   ino 3 MOUNT/three\n", "2 of 4 files that were last written before 2026-09-04T12:00:00Z are cold, 1 were deleted meanwhile"},
		{"cold 0", "cold -older 90d -0 /mnt", 0, "MOUNT/home/b/t\nwo\x00MOUNT/three\x00", observed},
		{"cold json", "cold -older 90d -json -paths /mnt", 0, `{"ino":2,"path":"MOUNT/home/b/t\nwo","last":"2026-08-20T12:00:00Z","type":"read","uid":1000,"gid":100,"pid":42,"opens":0,"reads":1,"bytes":2,"certain":false}
{"ino":3,"path":"MOUNT/three","last":null,"opens":0,"reads":0,"bytes":0,"certain":false}
`, ""},
		{"cold by user", "cold -older 90d -by user /mnt", 0, "       files              bytes  user\n           1                300  1001\n           1                200  1000\n", ""},
		{"cold by project", "cold -older 90d -by project -json /mnt", 0, `{"name":"1","files":1,"bytes":300}` + "\n" + `{"name":"0","files":1,"bytes":200}` + "\n", ""},
		{"cold by directory", "cold -older 90d -by directory -depth 2 /mnt", 0, "       files              bytes  directory\n           1                300  MOUNT\n           1                200  MOUNT/home/b\n", ""},
		{"certain, with a gap", "cold -certain -older 90d /mnt", 0, "", "nothing is certain about that time"},
		{"certain, after it", "cold -certain -older 40d /mnt", 0, "2026-08-20T12:00:00Z ino 2 by uid 1000\nnot while observed   ino 3\n2026-08-21T12:00:00Z ino 4 by uid 1000\n", "no gaps"},
		{"cold for too long", "cold -older 101d /mnt", 1, "", "not observed for long enough: node1 since 2026-08-19T12:00:00Z, and not since 2026-08-18T12:00:00Z: ask for a shorter time"},
		{"cold before a sample", "cold -older 97d /mnt", 1, "", "it is not known which files are that old"},
		{"cold of nothing", "cold /mnt", 64, "", "-older is missing"},
		{"cold never", "cold -older 0d /mnt", 64, "", "neither a time such as 90d"},
		{"cold both", "cold -older 9d -0 -json /mnt", 64, "", "do not go together"},
		{"cold elsewhere", "cold -older 90d -from ROOT/none /mnt", 66, "", "does scoutfs-notify-index@.service run for this mount?"},

		{"hot", "hot -last 1h /mnt", 0, "-", "no gaps"},
		{"hot share", "hot -last 200d -share 34% -sort reads -paths /mnt", 0, "           bytes      reads      opens  last access          file\n" +
			"               2          2          0  2026-11-27T11:59:59Z ino 1 MOUNT/home/a/one\n" +
			"               2          1          0  2026-08-20T12:00:00Z ino 2 MOUNT/home/b/t\\x0awo\n", "3 files were accessed since 2026-08-20T12:00:00Z"},
		{"hot nothing", "hot -share 0% /mnt", 64, "", "not a percentage"},

		{"last", "last -inodes /mnt 1 2 3", 0, `1: last read 2026-11-27T11:59:59Z by uid 1000 gid 100 pid 42; 0 opens, 2 reads, 2 bytes since 2026-09-28T12:00:00Z
  certain since then: node1: observed since 2026-08-19T12:00:00Z; no gaps
2: last read 2026-08-20T12:00:00Z by uid 1000 gid 100 pid 42; 0 opens, 1 reads, 2 bytes since 2026-08-20T12:00:00Z
  may have been accessed later: ` + observed + `3: not accessed while observed
  no access was seen: ` + observed, ""},
		{"last of no number", "last -inodes /mnt x", 1, "", `"x" is not an inode number`},
		{"last of no file", "last /mnt", 64, "", "files are needed"},
		{"stat", "stat /mnt", 0, "-", ""},
		{"vacuum", "vacuum /mnt", 0, "0 of 0 inodes are deleted\n", ""},
		{"vacuum from", "vacuum -from x /mnt", 64, "", "flag provided but not defined: -from"},
		{"vacuum nothing", "vacuum", 64, "", "a mount point is missing"},
		{"stat json", "stat -json /mnt", 0, "-", ""},
		{"merge nothing", "merge -o ROOT/x", 64, "", "at least one store"},
		{"merge", "merge -o ROOT/x ROOT/0000000000000abc", 0, "ROOT/x: 3 entries of 1 stores\n", ""},
		{"merge twice", "merge -o ROOT/x ROOT/0000000000000abc ROOT/0000000000000abc", 64, "", "two stores have the same: ROOT/0000000000000abc and ROOT/0000000000000abc, of node1: name each store once"},
		{"cold twice", "cold -older 90d -from ROOT/0000000000000abc -from ROOT/0000000000000abc/../0000000000000abc /mnt", 64, "", "name each store once"},
		{"follow what", "follow -exclude pid=1 /mnt", 64, "", "is not uid=N, gid=N"},
		{"follow a merged store", "follow", 64, "", "a mount point is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, root, out, errs, _ := testEnvironment(t)
			args := strings.Fields(strings.ReplaceAll(tt.args, "ROOT", root))
			if len(args) > 0 && commands[args[0]] != nil && args[0] != "follow" && args[0] != "merge" {
				args = append([]string{args[0], "-root", root}, args[1:]...)
			}
			status := run(t.Context(), env, args)
			want := strings.NewReplacer("MOUNT", mount, "ROOT", root).Replace(tt.stdout)
			if mount == "/" {
				want = strings.ReplaceAll(want, "//", "/")
			}
			if got := out(); status != tt.status || tt.stdout != "-" && got != want || tt.stdout == "-" && got == "" {
				t.Errorf("status %d, not %d; printed\n%q\nnot\n%q\n%s", status, tt.status, got, want, errs())
			}
			if got := errs(); !strings.Contains(got, strings.ReplaceAll(tt.stderr, "ROOT", root)) {
				t.Errorf("stderr\n%s\nlacks\n%s", got, tt.stderr)
			}
		})
	}
}

// The walk is bounded by the transaction that was committed before.
func TestWalkBound(t *testing.T) {
	env, root, _, errs, seq := testEnvironment(t)
	if status := run(t.Context(), env, []string{"cold", "-root", root, "-older", "90d", "/mnt"}); status != 0 || *seq != 77 {
		t.Errorf("status %d, walked up to %d, not 77\n%s", status, *seq, errs())
	}
}

func TestAge(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "36h": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"": 0, "d": 0, "0d": 0, "-1d": 0, "1.5d": 0, "d1": 0, "1dd": 0, "99999999d": 0, "1y": 0, "-5h": 0, "90": 0,
	} {
		got, err := parseAge(s)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}
