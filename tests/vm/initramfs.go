// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// File is a file for the guest: the one at Source on the host, or Data if Source is
// empty. The libraries of a program are added to the guest, too.
type File struct {
	Source string
	Data   []byte
	Mode   fs.FileMode // permissions; 0 means Source's own, or 0644
}

// archive collects the files of an initramfs by their absolute paths in it.
type archive struct {
	files map[string]File
	links map[string]string
}

func newArchive() *archive { return &archive{files: map[string]File{}, links: map[string]string{}} }

// addProgram adds a file and, if it is a program, the libraries it needs.
func (a *archive) addProgram(ctx context.Context, name string, f File) error {
	if !path.IsAbs(name) || path.Clean(name) != name {
		return fmt.Errorf("add file %q to the machine: not a clean absolute path", name)
	}
	a.files[name] = f
	if f.Source == "" {
		return nil
	}
	libs, err := sharedLibs(ctx, f.Source)
	if err != nil {
		return err
	}
	for _, l := range libs {
		if _, ok := a.files[l]; !ok {
			a.files[l] = File{Source: l, Mode: 0o755}
		}
	}
	return nil
}

// addBusybox adds a shell and the usual small programs to /bin. The caller's own in
// /usr/bin come first in PATH.
func (a *archive) addBusybox(ctx context.Context) error {
	bb, err := run.Tool("busybox", "busybox-static")
	if err != nil {
		return err
	}
	if libs, err := sharedLibs(ctx, bb); err != nil || len(libs) > 0 {
		return errors.Join(err, fmt.Errorf("add busybox: %s is not static; install the Debian package busybox-static", bb))
	}
	out, err := run.Output(ctx, bb, "--list")
	if err != nil {
		return err
	}
	a.files["/bin/busybox"] = File{Source: bb, Mode: 0o755}
	for _, applet := range strings.Fields(out) {
		name := "/bin/" + applet
		if _, ok := a.files[name]; !ok && applet != "busybox" {
			a.links[name] = "busybox"
		}
	}
	return nil
}

// baseFiles are the files that programs expect on any machine.
var baseFiles = map[string]string{
	"/etc/passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
	"/etc/group":    "root:x:0:\nnogroup:x:65534:\n",
	"/etc/hosts":    "127.0.0.1 localhost guest\n::1 localhost\n",
	"/etc/hostname": "guest\n",
}

// write writes the archive as an uncompressed cpio: an emulated processor reads
// many bytes faster than it unpacks few.
func (a *archive) write(w io.Writer) error {
	cw := cpio.NewWriter(w)
	dirs := map[string]bool{"/": true}
	var mkdir func(dir string) error
	mkdir = func(dir string) error {
		if dirs[dir] {
			return nil
		}
		dirs[dir] = true
		if err := mkdir(path.Dir(dir)); err != nil {
			return err
		}
		return cw.WriteHeader(&cpio.Header{Name: dir[1:], Mode: cpio.TypeDir | 0o755, Links: 2})
	}
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/mnt", "/root", "/bin", "/usr/bin", "/var"} {
		if err := mkdir(d); err != nil {
			return err
		}
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(a.files)), maps.Keys(a.links))
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		if err := mkdir(path.Dir(n)); err != nil {
			return err
		}
		var err error
		if f, ok := a.files[n]; ok {
			err = writeFile(cw, n, f)
		} else {
			err = writeLink(cw, n, a.links[n])
		}
		if err != nil {
			return fmt.Errorf("add %s to the initramfs: %w", n, err)
		}
	}
	return cw.Close()
}

func writeLink(cw *cpio.Writer, name, target string) error {
	h := &cpio.Header{Name: name[1:], Mode: cpio.TypeSymlink | 0o777, Size: int64(len(target)), Links: 1}
	if err := cw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(cw, target)
	return err
}

func writeFile(cw *cpio.Writer, name string, f File) error {
	var src io.Reader = strings.NewReader(string(f.Data))
	size, mode := int64(len(f.Data)), f.Mode.Perm()
	if f.Source != "" {
		in, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer in.Close()
		st, err := in.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", f.Source)
		}
		src, size = in, st.Size()
		if mode == 0 {
			mode = st.Mode().Perm()
		}
	}
	if mode == 0 {
		mode = 0o644
	}
	h := &cpio.Header{Name: name[1:], Mode: cpio.TypeReg | cpio.FileMode(mode), Size: size, Links: 1}
	if err := cw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.CopyN(cw, src, size)
	return err
}

// makeInitramfs writes the initramfs of a machine to file.
func makeInitramfs(ctx context.Context, file, initProgram string, c *Config, spec *proto.Spec) error {
	a := newArchive()
	for name, text := range baseFiles {
		a.files[name] = File{Data: []byte(text)}
	}
	a.files["/init"] = File{Source: initProgram, Mode: 0o755}
	for name, f := range c.Files {
		if err := a.addProgram(ctx, name, f); err != nil {
			return err
		}
	}
	if err := a.addBusybox(ctx); err != nil {
		return err
	}
	modules, err := c.Kernel.resolve(slices.Concat(baseModules(c), c.Modules))
	if err != nil {
		return err
	}
	// The first ones of all are the same modules in the same order; the program
	// loads the rest.
	all, err := c.Kernel.resolve(slices.Concat(baseModules(c), c.Modules, c.LaterModules))
	if err != nil {
		return err
	}
	for i, m := range all {
		text, err := readModule(ctx, m.path)
		if err != nil {
			return err
		}
		p := "/lib/modules/" + m.name + ".ko"
		a.files[p] = File{Data: text}
		if i < len(modules) {
			spec.Modules = append(spec.Modules, p)
		} else {
			spec.Later = append(spec.Later, p)
		}
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	a.files[proto.SpecPath] = File{Data: text}
	return writeTo(file, a.write)
}

// writeTo creates a file and lets write fill it.
func writeTo(file string, write func(io.Writer) error) (err error) {
	f, err := os.Create(filepath.Clean(file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}
