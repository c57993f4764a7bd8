// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

func TestDelivery(t *testing.T) {
	records := 30_000
	if !largeQueues {
		records = 250
		t.Logf("without CAP_NET_ADMIN: only %d records, which fit in any queue", records)
	}
	for _, sizes := range [][]int{
		{1}, {notify.RingRecords}, {1, 2, 3, 64, 1000, notify.RingRecords},
	} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			cfg := testConfig(t)
			cfg.sendBuffer = 1 << 28 // holds all records
			d := startDaemon(t, cfg)
			errs := make(chan error)
			for _, size := range sizes {
				c := d.dial(size)
				go func() {
					err := expect(c, 1, uint64(records))
					if err == nil && c.Lost() != 0 {
						err = fmt.Errorf("lost %d", c.Lost())
					}
					if err != nil {
						err = fmt.Errorf("with %d records per packet: %w", size, err)
					}
					errs <- err
				}()
			}
			d.ring.emitAll(records)
			for range sizes {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestKernelDropsShowAsGap(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	c := d.dial(0)
	d.ring.emit(5000)
	d.ring.settle()
	d.ring.emit(1)
	if err := expect(c, 1, notify.RingRecords); err != nil {
		t.Fatal(err)
	}
	if err := expect(c, 5001, 5001); err != nil {
		t.Fatal(err)
	}
	if want := uint64(5000 - notify.RingRecords); c.Lost() != want {
		t.Errorf("lost %d records, want %d", c.Lost(), want)
	}
}

func TestStop(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	c := d.dial(0)
	d.ring.emit(700)
	d.stop()
	if err := d.wait(); err != nil {
		t.Fatalf("run: %v", err)
	}
	if err := errors.Join(expect(c, 1, 700), expectEOF(c)); err != nil {
		t.Error(err)
	}
	checkGone(t, d)
}

// TestStopUnderLoad: all drained records are delivered, and the log has their number.
func TestStopUnderLoad(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	c := d.dial(0)
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		for !d.ring.closed() {
			d.ring.emit(100)
		}
	}()
	var got, last uint64
	for {
		r, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got, last = got+1, r.Seq
		if got == 5000 {
			d.stop()
		}
	}
	if err := d.wait(); err != nil {
		t.Errorf("run: %v", err)
	}
	<-loaded
	line := d.log.await("msg=stopping")
	if want := fmt.Sprintf(" records=%d ", got); !strings.Contains(line, want) {
		t.Errorf("the client got %d records, the log says %s", got, line)
	}
	// In version 2 that includes what was lost after the last record.
	if got+c.Lost() != c.Seq() || c.Seq() < last {
		t.Errorf("got %d records up to %d and missed %d of %d", got, last, c.Lost(), c.Seq())
	}
	checkGone(t, d)
}

func TestUnmount(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	c := d.dial(0)
	d.ring.emit(700)
	d.ring.unmount()
	if err := d.wait(); err != nil {
		t.Fatalf("run: %v", err)
	}
	if err := errors.Join(expect(c, 1, 700), expectEOF(c)); err != nil {
		t.Error(err)
	}
	checkGone(t, d)
}

func TestSourceFailure(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	c := d.dial(0)
	d.ring.fail(unix.EIO)
	if err := d.wait(); !errors.Is(err, unix.EIO) {
		t.Fatalf("run: %v, want EIO", err)
	}
	if err := expectEOF(c); err != nil {
		t.Error(err)
	}
	checkGone(t, d)
}

// checkGone checks that a daemon left only its empty directory.
func checkGone(t *testing.T, d *testDaemon) {
	t.Helper()
	if !d.ring.closed() {
		t.Error("the reader is still attached")
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
}

func TestModes(t *testing.T) {
	// The umask does not matter.
	for _, umask := range []int{0, 0o177, 0o777} {
		t.Run(fmt.Sprintf("%04o", umask), func(t *testing.T) {
			cfg := testConfig(t)
			cfg.runDir = filepath.Join(cfg.runDir, "scoutfs")
			defer unix.Umask(unix.Umask(umask))
			d := startDaemon(t, cfg)
			for name, want := range map[string]fs.FileMode{
				"..":               fs.ModeDir | 0o755,
				".":                fs.ModeDir | 0o755,
				notify.SocketName:  fs.ModeSocket | 0o600,
				notify.LockName:    0o600 &^ fs.FileMode(umask),
				notify.StateName:   0o644,
				notify.MetricsName: 0o644,
			} {
				fi, err := os.Lstat(filepath.Join(d.dir, name))
				if err != nil {
					t.Error(err)
					continue
				}
				if fi.Mode() != want {
					t.Errorf("%s has mode %v, want %v", name, fi.Mode(), want)
				}
			}
		})
	}
}

// TestPublishAfterDrain: the state is written when no records wait, and not before those
// that do are drained.
func TestPublishAfterDrain(t *testing.T) {
	r, ring := newTestRelay(t)
	var order []string
	r.src = drains{ring, func() { order = append(order, "drain") }}
	restore := r.pub.restore
	r.pub.restore = func() (bool, error) {
		order = append(order, "publish")
		unix.Write(r.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // and the loop ends
		return restore()
	}
	ring.emit(1)
	r.news = true
	if err := r.loop(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"drain", "publish"}; !slices.Equal(order, want) {
		t.Errorf("%v, should be %v", order, want)
	}
}

// drains is a source that tells of each drain.
type drains struct {
	source
	tell func()
}

func (d drains) Drain(buf []byte) (int, uint64, error) {
	d.tell()
	return d.source.Drain(buf)
}
