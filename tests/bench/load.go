// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// access opens or reads, and says how many events that makes.
type access struct {
	do     func() error
	events uint64
}

// Raw system calls: the scheduler is not told, which would have it run.

// reading reads 4 KiB of an open file.
func reading(fd int) access {
	buf := make([]byte, 4096)
	return access{events: 1, do: func() error {
		n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if int(n) != len(buf) || errno != 0 {
			return fmt.Errorf("pread: %d bytes, error %w", int(n), errno)
		}
		return nil
	}}
}

// openReading does the same between an open and a close.
func openReading(path string) (access, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return access{}, err
	}
	buf := make([]byte, 4096)
	return access{events: 2, do: func() error {
		at := unix.AT_FDCWD
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(name)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("open %s: %w", path, errno)
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if int(n) != len(buf) || errno != 0 {
			return fmt.Errorf("pread %s: %d bytes, error %w", path, int(n), errno)
		}
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		return nil
	}}, nil
}

// samples are the times of batches of accesses, each much shorter than the time between two
// drains of the daemon or two timer interrupts.
type samples struct{ all, own []time.Duration } // by the clock, and the thread's own

const batch = 20

// sample adds some, and returns how many events that made.
func (a access) sample(s *samples, times int) (events uint64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range times {
		start, own := clock(unix.CLOCK_MONOTONIC), threadTime()
		for range batch {
			if err := a.do(); err != nil {
				return 0, err
			}
		}
		s.own = append(s.own, threadTime()-own)
		s.all = append(s.all, clock(unix.CLOCK_MONOTONIC)-start)
	}
	return uint64(times) * batch * a.events, nil
}

// instructions returns how many an access takes, in a machine that counts them as time.
func (s *samples) instructions() instructions {
	slices.Sort(s.all)
	slices.Sort(s.own)
	return instructions{Least: int(s.all[0]) / batch, Median: int(s.own[len(s.own)/2]) / batch}
}

func threadTime() time.Duration { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

// clock reads a clock that is always there.
func clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic(fmt.Sprintf("clock_gettime %d: %v", id, err))
	}
	return time.Duration(ts.Nano())
}

// processTime returns the processor time of a process, of all its threads.
func processTime(pid int) (time.Duration, error) {
	var ts unix.Timespec
	const processClock = 2 // CPUCLOCK_SCHED
	if err := unix.ClockGettime(int32(^pid<<3|processClock), &ts); err != nil {
		return 0, fmt.Errorf("processor time of %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// run makes accesses in threads, at a rate in all or as fast as possible, and returns how
// long it took, and how long the median of the first thread's accesses. Bursts keep the
// timer's interrupts to 10,000 a second.
func (a access) run(threads, accesses, rate int) (elapsed, one time.Duration, err error) {
	errs := make(chan error, threads)
	took := make([]time.Duration, accesses/threads)
	start := clock(unix.CLOCK_MONOTONIC)
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			runtime.LockOSThread() // and it ends with the goroutine
			times := took
			if i > 0 {
				times = make([]time.Duration, len(took))
			}
			errs <- a.paced(times, float64(rate)/float64(threads), start)
		})
	}
	wg.Wait()
	for range threads {
		if err := <-errs; err != nil {
			return 0, 0, err
		}
	}
	elapsed = clock(unix.CLOCK_MONOTONIC) - start
	slices.Sort(took)
	return elapsed, took[len(took)/2], nil
}

// paced makes as many accesses as there are times, and sets those to what each took.
func (a access) paced(times []time.Duration, rate float64, start time.Duration) error {
	burst := max(1, int(rate/10_000))
	for i := range times {
		if rate > 0 && i%burst == 0 {
			at := unix.NsecToTimespec(int64(start) + int64(float64(i)/rate*1e9))
			for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil) == unix.EINTR {
			}
		}
		before := clock(unix.CLOCK_MONOTONIC)
		if err := a.do(); err != nil {
			return err
		}
		times[i] = clock(unix.CLOCK_MONOTONIC) - before
	}
	return nil
}
