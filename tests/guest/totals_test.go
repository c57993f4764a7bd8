// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// totals are sums of accesses.
type totals struct{ Opens, Reads, Bytes uint64 }

// add adds up what tail -json prints.
func (s *totals) add(a access) {
	switch a.Type {
	case "open":
		s.Opens++
	case "read":
		s.Reads++
		s.Bytes += a.Length
	case "sum":
		s.Opens, s.Reads, s.Bytes = s.Opens+a.Opens, s.Reads+a.Reads, s.Bytes+a.Bytes
	}
}

// tailTotals adds up what tail -json has printed.
func tailTotals(text []byte) (s totals, err error) {
	for dec := json.NewDecoder(bytes.NewReader(text)); dec.More(); {
		var a access
		if err := dec.Decode(&a); err != nil {
			return s, err
		}
		s.add(a)
	}
	return s, nil
}

// topTotals returns the sum of the last table that top -json has printed.
func topTotals(text []byte) (totals, error) {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	var table struct{ Sum totals }
	err := json.Unmarshal(lines[len(lines)-1], &table)
	return table.Sum, err
}

var description = regexp.MustCompile(`<desc>opens (\d+), reads (\d+), bytes (\d+), lost nothing</desc>`)

// pictureTotals returns what a picture is described as.
func pictureTotals(text []byte) (s totals, err error) {
	found := description.FindSubmatch(text)
	if found == nil {
		return s, fmt.Errorf("no description that says that nothing was lost")
	}
	_, err = fmt.Sscan(string(bytes.Join(found[1:], []byte(" "))), &s.Opens, &s.Reads, &s.Bytes)
	return s, err
}

// observers are commands that add up what there is in a mount, a recording or a socket, and
// how to read their output.
var observers = []struct {
	args []string
	read func([]byte) (totals, error)
}{
	{[]string{"tail", "-json"}, tailTotals},
	{[]string{"tail", "-json", "-every", "1s"}, tailTotals},
	{[]string{"top", "-json", "-total", "-interval", "1h"}, topTotals},
	{[]string{"picture", "heatmap"}, pictureTotals},
	{[]string{"picture", "treemap"}, pictureTotals},
	{[]string{"picture", "reuse"}, pictureTotals},
	{[]string{"picture", "who"}, pictureTotals},
}

// observe starts all observers. What it returns waits for their ends and compares their sums.
func observe(t *testing.T, source string) (check func(want totals)) {
	t.Helper()
	type running struct {
		cmd         *exec.Cmd
		out, stderr bytes.Buffer
	}
	all := make([]*running, len(observers))
	for i, o := range observers {
		r := &running{cmd: exec.CommandContext(t.Context(), Command, append(append([]string{}, o.args...), source)...)}
		r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.stderr
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all[i] = r
	}
	return func(want totals) {
		t.Helper()
		for i, o := range observers {
			r := all[i]
			err := r.cmd.Wait()
			got, rerr := o.read(r.out.Bytes())
			if err != nil || rerr != nil || got != want {
				t.Errorf("%v %s: %v, %v, %+v, want %+v\n%s%.500s", o.args, source, err, rerr, got, want, &r.stderr, &r.out)
			}
		}
	}
}

// What is recorded, and what tail, top and the pictures make of the mount, of the recording
// and of its replay, are as many accesses and bytes as the kernel counted, with the paths.
func TestRecordTotals(t *testing.T) {
	const files, reads, size = 20, 50, 3000
	f := setup(t)
	if err := os.Mkdir(f.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		f.create(fmt.Sprintf("dir/%d", i), size)
	}
	d := f.startDaemon()
	live := observe(t, f.dir)
	file := filepath.Join(t.TempDir(), "access.rec")
	f.paths = true
	rec := exec.CommandContext(t.Context(), Command, "record", "-paths", "-count", fmt.Sprint(files*(reads+1)), file, f.dir)
	var errs strings.Builder
	rec.Stderr = &errs
	if err := rec.Start(); err != nil {
		t.Fatal(err)
	}
	f.awaitClients(len(observers) + 1)
	want := totals{Opens: files}
	buf := make([]byte, 1000)
	for i := range files {
		fd, err := unix.Open(f.path(fmt.Sprintf("dir/%d", i)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for j := range reads {
			n, err := unix.Pread(fd, buf, int64(j*100%size))
			if err != nil {
				t.Fatal(err)
			}
			want.Reads++
			want.Bytes += uint64(n)
		}
		unix.Close(fd)
	}
	if err := rec.Wait(); err != nil || !strings.Contains(errs.String(), "lost nothing") {
		t.Fatalf("record: %v, %s", err, &errs)
	}
	emitted, dropped := f.counters()
	if emitted != want.Opens+want.Reads || dropped != 0 {
		t.Fatalf("the kernel counted %d and %d, want %+v", emitted, dropped, want)
	}
	d.signal(unix.SIGTERM)
	if status := d.wait(); status != 0 {
		t.Errorf("the daemon's exit status: %d", status)
	}
	live(want)
	observe(t, file)(want)

	socket := filepath.Join(t.TempDir(), notify.SocketName)
	replay := exec.CommandContext(t.Context(), Command, "replay", "-speed", "max", "-clients", fmt.Sprint(len(observers)), file, socket)
	replay.Stderr = os.Stderr
	if err := replay.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("replay makes no socket")
		}
	}
	observe(t, socket)(want)
	if err := replay.Wait(); err != nil {
		t.Errorf("replay: %v", err)
	}

	stdout, stderr, status := run(t, Command, "tail", "-json", "-paths", file)
	if status != 0 {
		t.Fatalf("tail: status %d, %s", status, stderr)
	}
	paths := 0
	for dec := json.NewDecoder(strings.NewReader(stdout)); dec.More(); {
		var a access
		if err := dec.Decode(&a); err != nil {
			t.Fatal(err)
		}
		switch {
		case a.Type != "open" && a.Type != "read":
		case strings.HasPrefix(a.Path, "dir/"):
			paths++
		case a.PathError != "unknown": // it was not found in time
			t.Errorf("no path: %+v", a)
		}
	}
	t.Logf("%d of %d accesses have paths", paths, want.Opens+want.Reads)
}

// awaitClients waits until the daemon has as many clients.
func (f *fs) awaitClients(n int) {
	f.t.Helper()
	state := filepath.Join(filepath.Dir(notify.SocketPath(f.FSID)), notify.StateName)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		st, err := notify.ReadState(state)
		if err == nil && len(st.Clients) == n {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("the daemon does not have %d clients: %+v, %v", n, st, err)
		}
	}
}
