// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
)

// patience limits the wait for anything that has to come.
const patience = time.Minute

// files are those of the workload, with their sizes in KiB.
var files = []struct {
	name string
	kib  int
}{
	{"budget.csv", 12},
	{"archive/photo.raw", 64},
	{"archive/movie.mkv", 512},
	{"notes/todo.txt", 1},
}

// workload are the commands to run, each as a user.
var workload = []struct {
	uid  int
	line string
}{
	{0, "cat budget.csv >/dev/null"},
	{0, "head -c 100 notes/todo.txt >/dev/null"},
	{1000, "dd if=archive/photo.raw of=/dev/null bs=4k skip=3 count=2 2>/dev/null"},
	{1000, "sha256sum archive/movie.mkv >/dev/null"},
}

// storm is how many times a file is opened while the daemon is stopped.
const storm = 3000

type demo struct {
	mount notify.Mount
	names map[string]string // inode number -> file name
	lines chan string       // from tail, closed when it ends

	early              uint64 // records from before tail was a client
	opens, reads, lost uint64
	bytes              uint64
}

// show is the demo in the machine.
func show() error {
	d := &demo{names: make(map[string]string), lines: make(chan string, 64)}
	if err := d.mountAndFill(); err != nil {
		return err
	}
	daemon, err := startDaemon()
	if err != nil {
		return err
	}
	record, err := d.startRecord()
	if err != nil {
		return err
	}
	tail := exec.Command(guest.Command, "tail", guest.MountPoint)
	if err := d.follow(tail); err != nil {
		return err
	}

	if err := d.runWorkload(); err != nil {
		return err
	}
	if err := d.runStorm(daemon); err != nil {
		return err
	}
	return d.summary(daemon, tail, record)
}

// recordingPath is where the recording is in the machine.
const recordingPath = "/tmp/demo.rec"

// startRecord starts to record, and returns once that is a client of the daemon.
func (d *demo) startRecord() (*exec.Cmd, error) {
	record := exec.Command(guest.Command, "record", "-paths", recordingPath, guest.MountPoint)
	if err := record.Start(); err != nil {
		return nil, err
	}
	state := filepath.Join(filepath.Dir(notify.SocketPath(d.mount.FSID)), notify.StateName)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		st, err := notify.ReadState(state)
		switch {
		case err == nil && len(st.Clients) == 1:
			return record, nil
		case time.Now().After(end):
			return nil, errors.New("scoutfs-notify record does not become a client of the daemon")
		}
	}
}

// printRecording ends the recording and prints it for the host.
func printRecording(record *exec.Cmd) error {
	if err := record.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	if err := record.Wait(); err != nil {
		return fmt.Errorf("scoutfs-notify record: %w", err)
	}
	b, err := os.ReadFile(recordingPath)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(b, 720) {
		fmt.Printf("%s%s\n", recordingMark, base64.StdEncoding.EncodeToString(part))
	}
	return nil
}

// runWorkload runs the workload and shows what tail prints for each command.
func (d *demo) runWorkload() error {
	fmt.Printf("scoutfs-notify tail %s, with the names of the workload's files:\n", guest.MountPoint)
	for _, w := range workload {
		prompt := "$"
		if w.uid == 0 {
			prompt = "#"
		}
		fmt.Printf("\n%s %s\n", prompt, w.line)
		cmd := exec.Command("sh", "-ec", w.line)
		cmd.Dir = guest.MountPoint
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.uid)}}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", w.line, err)
		}
		if err := d.catchUp(12); err != nil {
			return err
		}
	}
	return nil
}

// runStorm overflows the ring of a stopped daemon, and shows what tail makes of it.
func (d *demo) runStorm(daemon *exec.Cmd) error {
	fmt.Printf("\nThe daemon is stopped (SIGSTOP) while a file is opened %d times: nobody waits for it.\n", storm)
	if err := daemon.Process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	for range storm {
		if err := open("budget.csv"); err != nil {
			return err
		}
	}
	if err := daemon.Process.Signal(unix.SIGCONT); err != nil {
		return err
	}
	if err := d.catchUp(2); err != nil {
		return err
	}
	// The stream goes on after the loss.
	head := exec.Command("head", "-c", "1", "notes/todo.txt")
	head.Dir = guest.MountPoint
	if err := head.Run(); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	return d.catchUp(12)
}

// summary ends the demo: it shows that the counts agree, and that umount works with
// everything running.
func (d *demo) summary(daemon, tail, record *exec.Cmd) error {
	var n [3]uint64
	for i, name := range []string{"notify_emitted", "notify_dropped_ring_full", "notify_reader_attached"} {
		var err error
		if n[i], err = d.counter(name); err != nil {
			return err
		}
	}
	emitted, dropped, attached := n[0], n[1], n[2]

	start := time.Now()
	if err := unix.Unmount(guest.MountPoint, 0); err != nil {
		return fmt.Errorf("umount %s: %w", guest.MountPoint, err)
	}
	took := time.Since(start)
	if err := daemon.Wait(); err != nil {
		return fmt.Errorf("scoutfs-notifyd: %w", err)
	}
	for range d.lines {
		return errors.New("tail printed more than the kernel emitted")
	}
	if err := tail.Wait(); err != nil {
		return fmt.Errorf("scoutfs-notify tail: %w", err)
	}

	fmt.Printf(`
Summary
  accesses of regular files   %7d   = emitted + dropped
  records shown by tail       %7d   %d opens, %d reads of %d bytes
  lost, by tail's count       %7d
  notify_emitted              %7d   %d of them before tail was a client
  notify_dropped_ring_full    %7d
  notify_reader_attached      %7d
  umount with everything running took %v; scoutfs-notifyd and tail then exited with status 0
`, emitted+dropped, d.opens+d.reads, d.opens, d.reads, d.bytes, d.lost, emitted, d.early, dropped, attached,
		took.Round(time.Millisecond))
	if d.lost != dropped || d.opens+d.reads+d.early != emitted {
		return errors.New("these counts do not agree")
	}
	if err := printRecording(record); err != nil {
		return err
	}
	fmt.Println(lastLine)
	return nil
}

// mountAndFill mounts the file system and makes the workload's files.
func (d *demo) mountAndFill() error {
	if err := guest.LoadModule(guest.Module); err != nil {
		return err
	}
	if err := guest.Mount(guest.MountPoint); err != nil {
		return err
	}
	var err error
	if d.mount, err = notify.Statfs(guest.MountPoint); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(guest.MountPoint, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte("scoutfs-notify.\n"), f.kib*64), 0o644); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		d.names[strconv.FormatUint(st.Ino, 10)] = f.name
	}
	return nil
}

// startDaemon starts the daemon and returns once it reports that it is ready.
func startDaemon() (*exec.Cmd, error) {
	const path = "/tmp/notify"
	sd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer sd.Close()
	cmd := exec.Command(guest.Daemon, guest.MountPoint)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	log, err := os.Create("/tmp/scoutfs-notifyd.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	sd.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, err := sd.Read(buf)
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("wait for scoutfs-notifyd: %w\n%s", err, text)
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			return cmd, nil
		}
	}
}

// follow starts tail and returns once it is a client of the daemon and has shown all
// accesses made until then.
func (d *demo) follow(tail *exec.Cmd) error {
	out, err := tail.StdoutPipe()
	if err != nil {
		return err
	}
	tail.Stderr = os.Stderr
	if err := tail.Start(); err != nil {
		return err
	}
	go func() {
		defer close(d.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.lines <- s.Text()
		}
	}()
	return d.connect()
}

// connect opens one file until tail shows it, then another one: once tail shows that,
// it has shown all of the first.
func (d *demo) connect() error {
	for end := time.Now().Add(patience); ; {
		if err := open(files[0].name); err != nil {
			return err
		}
		if _, err := d.line(50 * time.Millisecond); err == nil {
			break
		} else if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
			return err
		}
	}
	if err := open(files[1].name); err != nil {
		return err
	}
	for {
		line, err := d.line(patience)
		if err != nil {
			return err
		}
		if strings.Contains(inoField.ReplaceAllStringFunc(line, d.annotate), files[1].name) {
			break
		}
	}
	var err error
	d.early, err = d.counter("notify_emitted")
	return err
}

// line returns tail's next line.
func (d *demo) line(limit time.Duration) (string, error) {
	select {
	case line, ok := <-d.lines:
		if !ok {
			return "", errors.New("scoutfs-notify tail ended")
		}
		return line, nil
	case <-time.After(limit):
		return "", fmt.Errorf("wait for scoutfs-notify tail: %w", os.ErrDeadlineExceeded)
	}
}

func open(name string) error {
	fd, err := unix.Open(filepath.Join(guest.MountPoint, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

var (
	inoField  = regexp.MustCompile(`\bino ([0-9]+)`)
	lenField  = regexp.MustCompile(`\blength ([0-9]+)`)
	lostField = regexp.MustCompile(`^lost ([0-9]+) records?`)
	openWord  = regexp.MustCompile(`\bopen\b`)
)

// count counts a line of tail.
func (d *demo) count(line string) {
	if m := lostField.FindStringSubmatch(line); m != nil {
		n, _ := strconv.ParseUint(m[1], 10, 64)
		d.lost += n
	} else if m := lenField.FindStringSubmatch(line); m != nil {
		n, _ := strconv.ParseUint(m[1], 10, 64)
		d.bytes += n
		d.reads++
	} else if openWord.MatchString(line) {
		d.opens++
	}
}

// catchUp reads tail's lines until it has shown all that the kernel emitted, and
// prints at most that many.
func (d *demo) catchUp(most int) error {
	hidden := 0
	for shown := 0; ; {
		emitted, err := d.counter("notify_emitted")
		if err != nil {
			return err
		}
		if seen := d.early + d.opens + d.reads; seen >= emitted {
			break
		}
		line, err := d.line(patience)
		if err != nil {
			return err
		}
		d.count(line)
		if shown++; shown > most && !lostField.MatchString(line) {
			hidden++
			continue
		}
		fmt.Println(" ", inoField.ReplaceAllStringFunc(line, d.annotate))
	}
	if hidden > 0 {
		fmt.Printf("  ... and %d more\n", hidden)
	}
	return nil
}

// annotate adds a file's name to its inode number.
func (d *demo) annotate(field string) string {
	if name := d.names[strings.TrimPrefix(field, "ino ")]; name != "" {
		return field + " (" + name + ")"
	}
	return field
}

// counter reads one of the mount's counters.
func (d *demo) counter(name string) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/fs/scoutfs/f.%06x.r.%06x/counters/%s",
		uint64(d.mount.FSID)>>40, uint64(d.mount.RID)>>40, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}
