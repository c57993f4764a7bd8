// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// envSoak is the variable with TestSoak's duration, such as 10m.
const envSoak = "SOAK"

// The clients of TestSoak.
const (
	healthyClients = 8
	stalledClients = 4
	churnClients   = 4 // connect and disconnect
)

// stream is a client and a summary of the records it has received.
type stream struct {
	*notify.Client
	data      uint64 // the inode that the load reads
	records   uint64
	sum       uint64 // of the bytes of all records
	first     uint64 // seq
	last      uint64
	lastIno   uint64
	backwards bool
	wrong     *notify.Record // the first one that is not of the load
	buf       []byte
	err       error
}

// loadSize is the size of the load's reads.
const loadSize = 512

// madeByLoad reports whether a record can be of TestSoak's load, by every field. That
// includes opens of the files that mark an end.
func madeByLoad(r *notify.Record, data uint64) bool {
	if r.PID != uint32(os.Getpid()) || r.UID != 0 || r.GID != 0 || r.TimeNS == 0 ||
		r.OpenFlags&unix.O_ACCMODE != unix.O_RDONLY {
		return false
	}
	if r.Type == notify.TypeOpen {
		return r.Flags == notify.FlagComm && r.Comm.String() == ownName()
	}
	return r.Type == notify.TypeRead && r.Flags == 0 && r.Ino == data && r.Length == loadSize && r.Offset%loadSize == 0 && r.Offset < 1<<20
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// take receives a packet.
func (s *stream) take() bool {
	recs, err := s.ReadBatch()
	if err != nil {
		s.err = err
		return false
	}
	for i := range recs {
		if s.records == 0 {
			s.first = recs[i].Seq
		}
		if recs[i].Seq <= s.last {
			s.backwards = true
		}
		if s.wrong == nil && !madeByLoad(&recs[i], s.data) {
			wrong := recs[i]
			s.wrong = &wrong
		}
		s.records++
		s.last, s.lastIno = recs[i].Seq, recs[i].Ino
		s.buf, _ = recs[i].AppendBinary(s.buf[:0])
		s.sum = crc64.Update(s.sum, crcTable, s.buf)
	}
	return true
}

// takeUntil receives up to and including the first record of an inode.
func (s *stream) takeUntil(ino uint64) {
	for s.take() && s.lastIno != ino {
	}
}

// lost returns how many records are missing between the first and the last.
func (s *stream) lost() uint64 { return s.last - s.first + 1 - s.records }

// metrics returns the samples in the metrics file, by name and labels without fsid.
func (f *fs) metrics() map[string]uint64 {
	f.t.Helper()
	file, err := os.Open(filepath.Join(filepath.Dir(notify.SocketPath(f.FSID)), "metrics.prom"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	m := make(map[string]uint64)
	label := fmt.Sprintf(`fsid="%v"`, f.FSID)
	for s := bufio.NewScanner(file); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		name, value, _ := strings.Cut(s.Text(), "} ")
		name = strings.TrimPrefix(name, "scoutfs_notify_")
		name = strings.Replace(name, label, "", 1)
		name = strings.NewReplacer("{,", "{", "{", "{").Replace(name)
		n, err := strconv.ParseUint(value, 10, 64)
		if err == nil {
			m[strings.TrimSuffix(name, "{")] = n
		}
	}
	return m
}

// perClient returns a metric of each connected client.
func perClient(m map[string]uint64, name string) map[string]uint64 {
	out := make(map[string]uint64)
	for k, v := range m {
		if labels, ok := strings.CutPrefix(k, name+"{"); ok {
			out[labels] = v
		}
	}
	return out
}

// settled waits until the metrics show these numbers of records and clients, and
// returns them.
func (f *fs) settled(records uint64, clients int) map[string]uint64 {
	f.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		m := f.metrics()
		if m["records_total"] == records && m["clients"] == uint64(clients) {
			return m
		}
		if time.Now().After(end) {
			f.t.Fatalf("the metrics did not reach %d records and %d clients: %v", records, clients, m)
		}
	}
}

// resident returns the daemon's resident memory in KiB.
func (d *daemon) resident() uint64 {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// processorTime returns the daemon's user and system time, in units of 10 ms.
func (d *daemon) processorTime() time.Duration {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	// after the name: state, 10 more fields, utime, stime
	_, rest, _ := strings.Cut(string(text), ") ")
	var ticks uint64
	for _, field := range strings.Fields(rest)[11:13] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			d.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func (d *daemon) descriptors() int {
	d.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(fds)
}

// At full load every client that reads gets all records that the kernel delivered,
// whatever the others do, and the counts of lost records add up.
func TestSoak(t *testing.T) {
	duration := 10 * time.Second
	if s := os.Getenv(envSoak); s != "" {
		var err error
		if duration, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", envSoak, err)
		}
	}
	f := setup(t)
	data := f.create("data", 1<<20)
	end := f.create("end", 1)
	final := f.create("final", 1)
	d := f.startDaemon()

	connect := func(perPacket int) *stream {
		c, err := (&notify.Dialer{MaxRecords: perPacket}).DialContext(t.Context(), f.dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetReadDeadline(time.Now().Add(duration + 2*patience))
		return &stream{Client: c, data: data}
	}
	var healthy, stalled []*stream
	for range healthyClients {
		healthy = append(healthy, connect(0))
	}
	// Packets of one record fill a queue fastest.
	for range stalledClients {
		stalled = append(stalled, connect(1))
	}
	emitted0, dropped0 := f.counters()
	f.settled(emitted0, len(healthy)+len(stalled))
	fds0 := d.descriptors()

	var readers, churners, loaders sync.WaitGroup
	for _, s := range healthy {
		readers.Go(func() { s.takeUntil(end) })
	}
	var churnEnds, loadEnds atomic.Bool
	var visits atomic.Uint64
	for n := range churnClients {
		churners.Go(func() {
			for !churnEnds.Load() {
				c, err := notify.Dial(f.dir)
				if errors.Is(err, notify.ErrRefused) {
					// clients connect faster than the daemon notices that others
					// have left
					continue
				}
				if err != nil {
					t.Errorf("churning client: %v", err)
					return
				}
				c.SetReadDeadline(time.Now().Add(patience))
				wanted := 500 * (n + 1)
				for range wanted {
					if _, err := c.Next(); err != nil {
						t.Errorf("churning client: %v", err)
					}
				}
				wantBalance(t, c, uint64(wanted))
				c.Close()
				visits.Add(1)
			}
		})
	}
	for range 2 {
		loaders.Go(func() {
			fd, err := unix.Open(f.path("data"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			buf := make([]byte, loadSize)
			for off := int64(0); !loadEnds.Load(); off = (off + loadSize) % (1 << 20) {
				if _, err := unix.Pread(fd, buf, off); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}

	// sample memory twice a second
	var memory []uint64
	start := time.Now()
	for time.Since(start) < duration {
		time.Sleep(500 * time.Millisecond)
		memory = append(memory, d.resident())
	}
	// a churning client may wait for one more record, so end the load last
	churnEnds.Store(true)
	churners.Wait()
	loadEnds.Store(true)
	loaders.Wait()
	elapsed := time.Since(start)
	// make sure that the ring has room for the last record
	f.settled(f.counter("notify_emitted"), len(healthy)+len(stalled))
	f.touch("end")
	readers.Wait()

	emitted, dropped := f.counters()
	emitted, dropped = emitted-emitted0, dropped-dropped0
	m := f.settled(emitted0+emitted, len(healthy)+len(stalled))
	t.Logf("%v: %d records emitted, %d dropped by the kernel, %.0f accesses/s, %d visits of churning clients",
		elapsed.Round(time.Second), emitted, dropped, float64(emitted+dropped)/elapsed.Seconds(), visits.Load())
	t.Logf("the daemon took %v of processor time for %d drains, %d of them of a full ring",
		d.processorTime(), m["batches_total"], m["full_batches_total"])
	if m["kernel_dropped_records_total"] != dropped {
		t.Errorf("kernel_dropped_records_total is %d, the kernel's counter %d", m["kernel_dropped_records_total"], dropped)
	}
	for i, s := range healthy {
		switch {
		case s.err != nil:
			t.Errorf("healthy client %d: %v", i, s.err)
		case s.backwards:
			t.Errorf("healthy client %d: seq went back", i)
		case s.wrong != nil:
			t.Errorf("healthy client %d: got %+v, which is not of the load", i, *s.wrong)
		case s.records != emitted || s.lost() != dropped:
			t.Errorf("healthy client %d: got %d records and missed %d; the kernel delivered %d and dropped %d",
				i, s.records, s.lost(), emitted, dropped)
		case s.sum != healthy[0].sum:
			t.Errorf("healthy client %d: its bytes differ from client 0's", i)
		}
	}

	// The stalled clients read what they were sent, and then a gap of what they lost.
	sent, lost := perClient(m, "client_sent_records_total"), perClient(m, "client_lost_records_total")
	if len(sent) != len(healthy)+len(stalled) {
		t.Fatalf("the metrics list %d clients, not %d", len(sent), len(healthy)+len(stalled))
	}
	sentTo := make(map[uint64]int)
	for labels, n := range sent {
		if n+lost[labels] != emitted {
			t.Errorf("client %s: %d sent and %d lost do not add up to %d emitted", labels, n, lost[labels], emitted)
		}
		sentTo[n]++
	}
	// A kernel with sanitizers is too slow for a load that leaves a client behind.
	if n := sentTo[emitted]; n < len(healthy) || n > len(healthy) && !sanitized() {
		t.Errorf("%d clients were sent everything, not %d", n, len(healthy))
	}
	delivered := make([]uint64, len(stalled))
	for i, s := range stalled {
		for sentTo[s.records] == 0 && s.take() {
		}
		delivered[i] = s.records
		sentTo[s.records]--
	}
	f.touch("final")
	for i, s := range stalled {
		if s.err == nil {
			s.takeUntil(final)
		}
		if s.err != nil || s.backwards {
			t.Errorf("stalled client %d after %d records: %v, or seq went back", i, s.records, s.err)
			continue
		}
		missed := emitted - delivered[i]
		if got := s.lost(); got != dropped+missed {
			t.Errorf("stalled client %d: its gaps add up to %d records; %d were dropped by the kernel and %d not delivered",
				i, got, dropped, missed)
		}
		if missed == 0 && !sanitized() {
			t.Errorf("stalled client %d lost nothing: this test is too short", i)
		}
		t.Logf("stalled client %d was sent %d records and lost %d", i, delivered[i], missed)
	}
	if n := d.descriptors(); n > fds0 {
		t.Errorf("%d descriptors at the end, %d at the start", n, fds0)
	}
	// From each client's side alone, without a look at state or counters, every number
	// is accounted for, up to the end.
	d.signal(unix.SIGTERM)
	if status := d.wait(); status != 0 {
		t.Errorf("scoutfs-notifyd ended with %d", status)
	}
	for _, s := range append(healthy, stalled...) {
		for s.take() {
		}
		if s.err != io.EOF || s.End() == nil {
			t.Errorf("a stream ended with %v, %+v", s.err, s.End())
		}
		wantBalance(t, s.Client, s.records)
	}

	average := func(kib []uint64) float64 {
		sum := 0.0
		for _, n := range kib {
			sum += float64(n)
		}
		return sum / float64(len(kib))
	}
	const minute = 120 // samples
	var minutes []float64
	for m := memory; len(m) >= minute; m = m[minute:] {
		minutes = append(minutes, average(m[:minute]))
	}
	t.Logf("resident memory: %d KiB at first, %d KiB at last; by minute %.0f", memory[0], memory[len(memory)-1], minutes)
	if n := len(minutes); n >= 3 && minutes[n-1] > minutes[0]*1.05 {
		t.Errorf("resident memory grows by %.1f%% from the first minute to the last", 100*(minutes[n-1]/minutes[0]-1))
	}
}
