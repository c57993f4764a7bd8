// SPDX-License-Identifier: GPL-2.0-only

package names

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// slowFS is a file system in which each question takes some time.
type slowFS struct {
	*fakeFS
	latency time.Duration
}

func (s *slowFS) Link(ino uint64) (notify.Link, error) {
	if s.latency > 0 {
		// time.Sleep is no good for so short a time.
		unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		ts := unix.NsecToTimespec(int64(s.latency))
		unix.Nanosleep(&ts, nil)
	}
	return s.fakeFS.Link(ino)
}

// know asks for paths until they are known.
func know(p *Paths, first, n uint64) {
	for ino := first; ino < first+n; ino++ {
		for p.Path(context.Background(), ino).Err != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPaths asks for the path of each of 50,000 records a second for ten seconds, of
// 100,000 files in any order. It takes the records as they come from a daemon, those of a
// millisecond at once, and one after the other, as tail -paths does. It tells the share that
// was named, the processor time of a record, with that of the file system, and how late a
// record is done: without paths, when all are known, and when nothing is known at first, with
// file systems that take some time to answer.
func BenchmarkPaths(b *testing.B) {
	const (
		rate    = 50_000
		files   = 100_000
		folders = 1_000
		records = 10 * rate
	)
	f := newFakeFS()
	for dir := range uint64(folders) {
		f.links[2+dir] = notify.Link{Dir: notify.RootIno, Name: fmt.Sprintf("folder%d", dir)}
	}
	const first = 2 + folders
	for i := range uint64(files) {
		f.links[first+i] = notify.Link{Dir: 2 + i%folders, Name: fmt.Sprintf("file%d", i)}
	}
	for _, tt := range []struct {
		name    string
		latency time.Duration // below 0 without paths
		known   bool
	}{
		{"without", -1, false}, {"known", 20 * time.Microsecond, true},
		{"20us", 20 * time.Microsecond, false}, {"200us", 200 * time.Microsecond, false}, {"2ms", 2 * time.Millisecond, false},
	} {
		b.Run(tt.name, func(b *testing.B) {
			delays := make([]time.Duration, records)
			named, cpu := 0, time.Duration(0)
			for range b.N {
				var latency atomic.Int64
				p := newPaths(func() (tree, error) { return &slowFS{f, time.Duration(latency.Load())}, nil }, CacheSize)
				if tt.known {
					know(p, first, files)
				}
				latency.Store(int64(tt.latency))
				random := rand.New(rand.NewPCG(1, 2))
				before, begin := processorTime(b), time.Now()
				for i := range records {
					due := begin.Add(time.Duration(i) * time.Second / rate)
					if early := time.Until(due); early > 0 {
						time.Sleep(early + time.Millisecond)
					}
					if ino := first + random.Uint64N(files); tt.latency >= 0 && p.Path(context.Background(), ino).Err == nil {
						named++
					}
					delays[i] = time.Since(due)
				}
				cpu += processorTime(b) - before
				p.Close()
			}
			slices.Sort(delays)
			b.ReportMetric(100*float64(named)/float64(records*b.N), "%named")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(records*b.N)/1e3, "µs-cpu/record")
			b.ReportMetric(float64(delays[records*99/100].Microseconds())/1e3, "ms-p99")
			b.ReportMetric(0, "ns/op")
		})
	}
}
