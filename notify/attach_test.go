// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// tests/guest and tests/rpm/guest attach for real.
func TestAttachDeviceErrors(t *testing.T) {
	dir := t.TempDir()
	m, err := MountOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		path string
		dev  Device
		want error
	}{
		{"other device", dir, Device{4095, 4095}, ErrNotScoutFS},
		{"no such ioctl", dir, m.Device, ErrNotSupported},
		{"nothing", filepath.Join(dir, "nothing"), m.Device, os.ErrNotExist},
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
