// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// A file is one of a tag's.
type file struct {
	mode, id, path string
}

// list returns the files of a tag that a build for x86_64 looks at. Kconfig files and
// makefiles are read whether what they offer is built or not.
func list(ctx context.Context, src, tag string) ([]file, error) {
	out, err := run.Output(ctx, "git", "-C", src, "ls-tree", "-r", "-z", "--end-of-options", "refs/tags/"+tag)
	if err != nil {
		return nil, fmt.Errorf("read the tag %s of EL_KERNEL_SRC %s: %w", tag, src, err)
	}
	var all []file
	for entry := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		meta, path, _ := strings.Cut(entry, "\t")
		f := strings.Fields(meta)
		if len(f) != 3 || !filepath.IsLocal(path) {
			return nil, fmt.Errorf("read the tag %s: git ls-tree printed %q", tag, entry)
		}
		if f[1] == "blob" && wanted(path) {
			all = append(all, file{f[0], f[2], path})
		}
	}
	return all, nil
}

// unwanted are folders without what a machine needs, some of which have files so large
// that mirrors leave them out.
var unwanted = []string{"Documentation/", "drivers/gpu/drm/", "tools/testing/"}

// anywhere are the names of files that make or Kconfig reads wherever they are.
var anywhere = regexp.MustCompile(`^(Kconfig|Makefile|Kbuild)`)

func wanted(path string) bool {
	if anywhere.MatchString(filepath.Base(path)) {
		return true
	}
	for _, dir := range unwanted {
		if strings.HasPrefix(path, dir) {
			return false
		}
	}
	arch, ok := strings.CutPrefix(path, "arch/")
	return !ok || !strings.Contains(arch, "/") || strings.HasPrefix(arch, "x86/")
}

// extract writes files of a repository into dir. A file whose content the repository
// lacks is left out and told to missing: a build fails if it wants it.
func extract(ctx context.Context, src, dir string, files []file, missing func(path string)) error {
	cmd := exec.CommandContext(ctx, "git", "-C", src, "cat-file", "--batch")
	cmd.Env = run.Environ()
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	fed := make(chan error, 1)
	go func() { // git answers while it is still being asked
		w := bufio.NewWriter(in)
		for _, f := range files {
			fmt.Fprintln(w, f.id)
		}
		fed <- errors.Join(w.Flush(), in.Close())
	}()
	err = unpack(bufio.NewReaderSize(stdout, 1<<20), dir, files, missing)
	if err != nil {
		cmd.Process.Kill()
	}
	feedErr := <-fed
	waitErr := cmd.Wait()
	if err == nil {
		err = errors.Join(feedErr, waitErr)
	}
	if err != nil {
		return fmt.Errorf("extract the source: %w", err)
	}
	return nil
}

// unpack writes what git cat-file --batch answers for each file in turn.
func unpack(r *bufio.Reader, dir string, files []file, missing func(path string)) error {
	made := map[string]bool{}
	for _, f := range files {
		head, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		words := strings.Fields(head)
		if len(words) == 2 && words[1] == "missing" {
			missing(f.path)
			continue
		}
		if len(words) != 3 || words[0] != f.id {
			return fmt.Errorf("git cat-file printed %q for %s", strings.TrimSpace(head), f.path)
		}
		size, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, f.path)
		if parent := filepath.Dir(name); !made[parent] {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return err
			}
			made[parent] = true
		}
		if err := write(name, f.mode, &io.LimitedReader{R: r, N: size}); err != nil {
			return err
		}
		if _, err := r.Discard(1); err != nil { // a line feed follows
			return err
		}
	}
	return nil
}

// write makes a file as its mode in git says: a symbolic link, a program, or neither.
func write(name, mode string, text *io.LimitedReader) (err error) {
	if mode == "120000" {
		target, err := io.ReadAll(text)
		if err != nil {
			return err
		}
		return os.Symlink(string(target), name)
	}
	perm := fs.FileMode(0o644)
	if mode == "100755" {
		perm = 0o755
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err = io.Copy(out, text); err == nil && text.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}
