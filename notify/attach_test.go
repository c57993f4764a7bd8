// SPDX-License-Identifier: GPL-2.0-only

package notify

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tests/guest and tests/rpm/guest attach for real.
func TestAttachDeviceErrors(t *testing.T) {
	dir := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		path string
		dev  uint64
		want error
	}{
		{"other device", dir, st.Dev + 1, ErrNotScoutFS},
		{"no such ioctl", dir, st.Dev, ErrNotSupported},
		{"nothing", filepath.Join(dir, "nothing"), st.Dev, os.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := AttachDevice(t.Context(), tt.path, tt.dev); !errors.Is(err, tt.want) {
				t.Errorf("%+v, %v, want %v", r, err, tt.want)
			}
		})
	}
}

// Only a reader's descriptor says what it is attached to.
func TestMountOfOther(t *testing.T) {
	r := readerOn(t)
	defer r.Close()
	if m, err := mountOf(r.fd); err == nil {
		t.Errorf("%+v", m)
	}
	if m, err := mountOf(-1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%+v, %v", m, err)
	}
}
