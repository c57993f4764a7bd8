// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blakesmith/ar"
)

// makeDeb returns a deb with that control file and no content.
func makeDeb(t testing.TB, control string) []byte {
	t.Helper()
	var packed, deb bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	text := []byte(control)
	if err := w.WriteHeader(&tar.Header{Name: "./control", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	a := ar.NewWriter(&deb)
	if err := a.WriteGlobalHeader(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", packed.Bytes()}} {
		if err := a.WriteHeader(&ar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write(file.data); err != nil {
			t.Fatal(err)
		}
	}
	return deb.Bytes()
}

func TestAptIndex(t *testing.T) {
	dir := t.TempDir()
	const control = "Package: x\nVersion: 1.30-1\nArchitecture: all\nDescription: one\n more\n"
	deb := makeDeb(t, control)
	file := filepath.Join(dir, "x_1.30-1_all.deb")
	if err := os.WriteFile(file, deb, 0o644); err != nil {
		t.Fatal(err)
	}
	date := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	if err := aptIndex(dir, date); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "Packages"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%sFilename: ./x_1.30-1_all.deb\nSize: %d\nSHA256: %x\n\n", control, len(deb), sha256.Sum256(deb)); string(index) != want {
		t.Errorf("Packages is\n%s\nnot\n%s", index, want)
	}
	release, err := os.ReadFile(filepath.Join(dir, "Release"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("Date: Mon, 23 Nov 2026 00:00:00 UTC\nSHA256:\n %x %d Packages\n", sha256.Sum256(index), len(index)); !strings.HasSuffix(string(release), want) {
		t.Errorf("Release is\n%s\nand does not end with\n%s", release, want)
	}

	// A file that was cut is named.
	if err := os.WriteFile(file, deb[:len(deb)-100], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := aptIndex(dir, date); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a deb that was cut: %v", err)
	}
}

// FuzzDebControl: any file is read or refused.
func FuzzDebControl(f *testing.F) {
	deb := makeDeb(f, "Package: x\n")
	f.Add(deb)
	f.Add(deb[:70])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := debControl(data); err == nil && len(data) == 0 {
			t.Error("it read an empty file")
		}
	})
}
