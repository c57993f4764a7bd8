// SPDX-License-Identifier: GPL-2.0-only

// Package run runs programs to their end.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Main runs a program with a context that SIGINT and SIGTERM cancel, and ends the
// process with the exit status that main returns.
func Main(main func(ctx context.Context) (status int)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := main(ctx)
	stop()
	os.Exit(status)
}

// Environ is this process's environment for children: with messages in English,
// times in UTC, and without what an outer make or git sets for its own children.
// VERSION from "make test VERSION=..." would become a kernel's version, and a hook's
// GIT_DIR would point at another repository. Git settings and names that the user
// passes in the environment stay.
func Environ() []string {
	return append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return outer.MatchString(v) && !kept.MatchString(v)
	}), "LC_ALL=C", "TZ=UTC")
}

var (
	outer = regexp.MustCompile(`^(MAKEFLAGS|MFLAGS|MAKELEVEL|MAKEOVERRIDES|MAKEFILES|GIT_[A-Z_]*)=`)
	kept  = regexp.MustCompile(`^GIT_(CONFIG|AUTHOR|COMMITTER)`)
)

// GitAlone, added to the environment, makes git behave the same on every machine:
// without the user's and the system's configuration, and with its own committer.
var GitAlone = []string{
	"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=0", "GIT_CONFIG_PARAMETERS=",
	"GIT_COMMITTER_NAME=scoutfs-notify", "GIT_COMMITTER_EMAIL=scoutfs-notify@localhost",
	"GIT_AUTHOR_NAME=scoutfs-notify", "GIT_AUTHOR_EMAIL=scoutfs-notify@localhost",
}

// Tool finds a program in PATH or in the sbin folders, which are not in an ordinary
// user's PATH on Debian. If there is none, the error names the Debian package pkg.
func Tool(name, pkg string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find the program %s: %w; install the Debian package %s", name, err, pkg)
}

// A Command is a program to run to its end. Its error holds all that the program
// printed, and wraps the context's cause if the context ended it.
type Command struct {
	Dir   string    // to run in; "" for the current one
	Env   []string  // added to Environ
	Stdin io.Reader // nil for none
	Argv  []string
}

// Output runs the command and returns what it wrote to standard output, even with an
// error.
func (c Command) Output(ctx context.Context) (string, error) {
	var stdout bytes.Buffer
	var both buffer
	err := c.run(ctx, io.MultiWriter(&stdout, &both), &both, &both)
	return stdout.String(), err
}

// Combined runs the command and returns what it wrote to standard output and
// standard error, in the order written, even with an error.
func (c Command) Combined(ctx context.Context) (string, error) {
	// One writer for both: the program gets one pipe.
	var both buffer
	err := c.run(ctx, &both, &both, &both)
	return both.String(), err
}

func (c Command) run(ctx context.Context, stdout, stderr io.Writer, both *buffer) error {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	cmd.Env = append(Environ(), c.Env...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// After a kill, do not wait for a grandchild that still holds the pipe.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("run %s: %w\n%s", strings.Join(c.Argv, " "), err, strings.TrimSpace(both.String()))
}

// EndAll has the end of cmd's context end what the program has started, too, as "go test"
// starts a test. It is for a program of [Main]: a signal from the terminal no longer
// reaches those.
func EndAll(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
}

// Output runs a program in the current folder and returns what it wrote to standard
// output. See [Command] for the error.
func Output(ctx context.Context, argv ...string) (string, error) {
	return Command{Argv: argv}.Output(ctx)
}

// ExitStatus returns the exit status in the error of a Command, or 0 if the error is
// something else.
func ExitStatus(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// buffer collects two streams, each copied by its own goroutine.
type buffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
