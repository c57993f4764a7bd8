// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// progress tells a person what takes the time, on standard error.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vm: "+format+"\n", args...)
}

// tool finds a program in PATH or in the folders that hold the system's, which
// the PATH of an ordinary user on Debian lacks.
func tool(name, pkg string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && !st.IsDir() {
			return p, nil
		}
	}
	return "", fmt.Errorf("find the program %s: not in PATH; install the Debian package %s", name, pkg)
}

// command is a program to run to its end.
type command struct {
	dir  string
	env  []string // added to the environment
	argv []string
}

// outer matches variables that the make or git which runs these tests sets for
// its children, and which would change what another make or git does: the
// version in "make test VERSION=..." would become the kernel's.
var outer = regexp.MustCompile(`^(MAKEFLAGS|MFLAGS|MAKELEVEL|MAKEOVERRIDES|MAKEFILES|GIT_DIR|GIT_WORK_TREE|GIT_INDEX_FILE|GIT_PREFIX)=`)

func environ() []string { return slices.DeleteFunc(os.Environ(), outer.MatchString) }

// combined runs c and returns what it wrote to standard output and error, in
// the order written, also with an error.
func (c command) combined(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir = c.dir
	cmd.Env = slices.Concat(environ(), []string{"LC_ALL=C"}, c.env)
	// A grandchild that holds the pipe must not outlive the deadline's kill.
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = &out
	err := cmd.Run()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		err = fmt.Errorf("run %s: %w", strings.Join(c.argv, " "), err)
	}
	return out.String(), err
}

// output is combined with the output as a part of the error.
func (c command) output(ctx context.Context) (string, error) {
	out, err := c.combined(ctx)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return out, err
}

func run(ctx context.Context, argv ...string) (string, error) {
	return command{argv: argv}.output(ctx)
}
