// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tests/guest tests the kernel's part in virtual machines. These are the tests of what
// this package does by itself.

func TestNotScoutFS(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		want       error
	}{
		{"other file system", dir, ErrNotScoutFS},
		{"proc", "/proc", ErrNotScoutFS},
		{"nothing", filepath.Join(dir, "nothing"), os.ErrNotExist},
		{"file", file, unix.ENOTDIR},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := Statfs(tt.path); !errors.Is(err, tt.want) {
				t.Errorf("Statfs: %+v, %v, want %v", m, err, tt.want)
			}
			if r, err := Attach(tt.path); !errors.Is(err, tt.want) {
				t.Errorf("Attach: %+v, %v, want %v", r, err, tt.want)
			}
		})
	}
}

// readerOn returns a Reader on a descriptor that is not a ring's.
func readerOn(t *testing.T) *Reader {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &Reader{fd: fd, mount: Mount{FSID: 1, RID: 2}}
}

func TestReaderErrors(t *testing.T) {
	r := readerOn(t)
	r.args.Dropped = 17
	if n, dropped, err := r.Drain(make([]byte, RecordSize-1)); err == nil || dropped != 17 {
		t.Errorf("Drain into a buffer for less than one: %d records, %d dropped, %v", n, dropped, err)
	}
	if _, _, err := r.Drain(make([]byte, RecordSize)); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("Drain of another descriptor: %v", err)
	}
	if r.Fd() < 0 {
		t.Errorf("descriptor %d", r.Fd())
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := r.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if _, _, err := r.Drain(make([]byte, RecordSize)); !errors.Is(err, ErrClosed) {
		t.Errorf("Drain after Close: %v", err)
	}
	if r.Fd() != -1 {
		t.Errorf("descriptor %d after Close", r.Fd())
	}
}

func TestID(t *testing.T) {
	for _, tt := range []struct {
		id   ID
		text string
	}{{0, "0000000000000000"}, {0xabc, "0000000000000abc"}, {1<<64 - 1, "ffffffffffffffff"}} {
		if got := tt.id.String(); got != tt.text {
			t.Errorf("%#x is printed as %s", uint64(tt.id), got)
		}
		var back ID
		if err := back.UnmarshalText([]byte(tt.text)); err != nil || back != tt.id {
			t.Errorf("%s is parsed as %v, %v", tt.text, back, err)
		}
	}
	for _, bad := range []string{"", "0", "00000000000000000", "000000000000000g", "0x00000000000000", "ABCDEF0123456789", "+000000000000000"} {
		var id ID
		if err := id.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is parsed as %v", bad, id)
		}
	}
	if got, want := SocketPath(0xabc), "/run/scoutfs/0000000000000abc/notify.sock"; got != want {
		t.Errorf("socket is %s, want %s", got, want)
	}
}
