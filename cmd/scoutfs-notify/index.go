// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

// indexProgram answers what takes more than the present to answer. It is a program of its
// own, so that this one stays small, and is installed with it.
const indexProgram = "scoutfs-notify-index"

// runIndexed returns a command that is one of indexProgram, which replaces this process.
func runIndexed(command string) func(context.Context, *environment, []string) error {
	return func(_ context.Context, env *environment, args []string) error {
		if !env.program.Completes() && slices.ContainsFunc(args, func(a string) bool { return a == "-h" || a == "-help" || a == "--help" }) {
			fmt.Fprintf(env.stdout, "Usage: scoutfs-notify %[1]s [flags] MOUNT\n\nRuns %[2]s %[1]s, which has the flags: %[2]s help %[1]s\n", command, indexProgram)
			return flag.ErrHelp
		}
		path, err := findProgram(indexProgram)
		if err != nil {
			return fmt.Errorf("%s: %w: install it beside scoutfs-notify", command, err)
		}
		argv := []string{indexProgram, command}
		if env.program.Completes() {
			argv = []string{indexProgram, "complete", command}
		}
		err = syscall.Exec(path, append(argv, args...), os.Environ())
		return fmt.Errorf("run %s: %w", path, err)
	}
}

// findProgram returns the path of a program beside this one, or else of the search path.
func findProgram(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("there is no program %s", name)
	}
	return path, err
}
