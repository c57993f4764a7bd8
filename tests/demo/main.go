// SPDX-License-Identifier: GPL-2.0-only

// Demo boots a machine, mounts a file system in it and shows how scoutfs-notify
// reports who opens and reads which files. "make demo" runs it.
//
// The file system is real ScoutFS if SCOUTFS_SRC names its source, otherwise the
// stand-in. The same program runs on the host and, with -guest, in the machine.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

const demoPath = "/bin/demo"

func main() {
	inGuest := flag.Bool("guest", false, "run as the program in the machine")
	version := flag.String("version", "", "`release` of ScoutFS to show; the newest supported if empty")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := errors.New("demo takes no arguments; see -help")
	switch {
	case flag.NArg() > 0:
	case *inGuest:
		err = show()
	default:
		err = host(ctx, *version)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// host builds what the machine needs and boots it.
func host(ctx context.Context, version string) error {
	start := time.Now()
	k, err := vm.Kernel(ctx, vm.KernelNames()[0])
	if err != nil {
		return err
	}
	c, what, err := machine(ctx, k, version)
	if err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	if err := addPrograms(ctx, c.Files, bin); err != nil {
		return err
	}
	logs, err := repo.CacheDir("logs")
	if err != nil {
		return err
	}
	c.Kernel = k
	c.Argv = []string{demoPath, "-guest"}
	c.Modules = []string{"libcrc32c"}
	c.Timeout = 10 * time.Minute
	c.Log = filepath.Join(logs, "demo.log")
	out := &watch{w: os.Stdout}
	root, err := repo.Root()
	if err != nil {
		return err
	}
	c.Output = out
	fmt.Printf("Booting Linux %s with %s; this takes a few seconds.\n\n", k.Version, what)
	res, err := vm.Boot(ctx, c)
	if err != nil {
		return fmt.Errorf("%w (the machine's log is %s)", err, c.Log)
	}
	if res.Status != 0 {
		return fmt.Errorf("the demo failed in the machine with status %d (its log is %s)", res.Status, c.Log)
	}
	if !out.done {
		return fmt.Errorf("the machine ended without a summary (its log is %s)", c.Log)
	}
	if err := keep(ctx, filepath.Join(root, "bin"), out.recording); err != nil {
		return err
	}
	fmt.Printf("\nThe machine ran for %.0f s; the whole demo took %.0f s.\n",
		res.Elapsed.Seconds(), time.Since(start).Seconds())
	fmt.Print(afterwards)
	return nil
}

// afterwards says what to do with the recording.
const afterwards = `
It was recorded, and that can be looked at:
  bin/scoutfs-notify top bin/demo.rec
  bin/scoutfs-notify tail -paths bin/demo.rec
  bin/scoutfs-notify picture heatmap -o bin/demo.svg bin/demo.rec
`

// keep writes the recording to a folder, and the command that reads it.
func keep(ctx context.Context, dir string, recording []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := vm.BuildProgram(ctx, "./cmd/scoutfs-notify", filepath.Join(dir, "scoutfs-notify")); err != nil {
		return err
	}
	// As the command makes recordings: they say who read what.
	return os.WriteFile(filepath.Join(dir, "demo.rec"), recording, 0o600)
}

// addPrograms builds the machine's programs in the folder bin.
func addPrograms(ctx context.Context, files map[string]vm.File, bin string) error {
	for path, pkg := range map[string]string{
		guest.Daemon:  "./cmd/scoutfs-notifyd",
		guest.Command: "./cmd/scoutfs-notify",
		demoPath:      "./tests/demo",
	} {
		out := filepath.Join(bin, filepath.Base(path))
		if err := vm.BuildProgram(ctx, pkg, out); err != nil {
			return err
		}
		files[path] = vm.File{Source: out, Mode: 0o755}
	}
	return nil
}

// machine returns a machine with the file system, and what that is called.
func machine(ctx context.Context, k *vm.KernelTree, version string) (vm.Config, string, error) {
	s, err := repo.Newest()
	if version != "" {
		s, err = repo.Release(version)
	}
	if err != nil {
		return vm.Config{}, "", err
	}
	tree, err := vm.ScoutFS(ctx, vm.ScoutFSBuild{Version: s.Version, Kernel: k, Series: s})
	if errors.Is(err, vm.ErrNoSource) {
		m, err := standin.Build(ctx, k)
		if err != nil {
			return vm.Config{}, "", err
		}
		return vm.Config{
			Env:   []string{guest.EnvFS + "=" + guest.StandIn},
			Files: map[string]vm.File{guest.Module: {Source: m.Patched}},
		}, "the stand-in file system (set SCOUTFS_SRC for real ScoutFS)", nil
	}
	if err != nil {
		return vm.Config{}, "", err
	}
	c := tree.Config(k)
	c.Env = []string{guest.EnvFS + "=" + guest.ScoutFS}
	c.Files = map[string]vm.File{
		guest.Module:   {Source: tree.Module},
		"/bin/scoutfs": {Source: tree.Util, Mode: 0o755},
	}
	return c, "ScoutFS " + s.Version, nil
}

// lastLine ends the summary, and so shows that there was one.
const lastLine = "Everything that was opened and read has been accounted for."

// recordingMark begins the lines with the recording, in Base64.
const recordingMark = "recording "

// watch passes on the lines that the machine prints, notes whether it got to lastLine, and
// keeps the recording.
type watch struct {
	w         io.Writer
	line      bytes.Buffer
	done      bool
	recording []byte
}

func (w *watch) Write(b []byte) (int, error) {
	for _, c := range b {
		w.line.WriteByte(c)
		if c != '\n' {
			continue
		}
		err := w.take(w.line.String())
		w.line.Reset()
		if err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (w *watch) take(line string) error {
	if text, ok := strings.CutPrefix(line, recordingMark); ok {
		part, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		w.recording = append(w.recording, part...)
		return err
	}
	w.done = w.done || strings.Contains(line, lastLine)
	_, err := io.WriteString(w.w, line)
	return err
}
