// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// KernelTree is a kernel that can be booted and built against.
type KernelTree struct {
	Name    string // what it was asked for by: "debian11", or the folder
	Version string // as uname -r prints it in the machine
	Image   string // path of what QEMU boots
	Modules string // path of lib/modules/VERSION
	Build   string // path of the build directory, for make -C; "" without headers
}

// debianSuites gives the suite of each kernel that Debian packages provide.
var debianSuites = map[string]string{
	"debian11": "bullseye", // 5.10, between the kernels of EL8 and EL9
	"debian12": "bookworm", // 6.1
}

// KernelNames returns what to pass to [Kernel]: the folder KERNEL_DIR when the
// environment sets it, otherwise the kernels that Debian packages provide.
func KernelNames() []string {
	if dir := os.Getenv("KERNEL_DIR"); dir != "" {
		return []string{dir}
	}
	return []string{"debian11", "debian12"}
}

// Kernel returns a kernel by its name, "debian11" or "debian12", which is
// downloaded at first and then taken from the cache; or by a path with a slash
// in it, which is handed to [OpenKernel]. Calls from several goroutines and
// processes wait for each other.
func Kernel(ctx context.Context, name string) (*KernelTree, error) {
	if strings.Contains(name, "/") {
		return OpenKernel(name)
	}
	suite, ok := debianSuites[name]
	if !ok {
		return nil, fmt.Errorf("find kernel %q: no such name; known are debian11 and debian12, "+
			"or the path of a folder with a slash in it", name)
	}
	dir, err := repo.Cached("kernels", name, func(tmp string) error { return fetchDebian(ctx, tmp, name, suite) })
	if err != nil {
		return nil, fmt.Errorf("get kernel %s: %w", name, err)
	}
	k, err := OpenKernel(dir)
	if err != nil {
		return nil, err
	}
	k.Name = name
	return k, nil
}

// OpenKernel returns the kernel in a folder, which is laid out like this:
//
//	DIR/vmlinuz               or DIR/boot/vmlinuz-VERSION
//	DIR/lib/modules/VERSION/  the modules, with modules.dep; the only VERSION
//	DIR/build/                or DIR/lib/modules/VERSION/build, when it exists:
//	                          the one directory that external modules are
//	                          built against, headers and scripts in it
//
// An RPM of a kernel unpacked into DIR is nearly that: copy its
// usr/src/kernels/VERSION to DIR/build and its lib/modules/VERSION/vmlinuz to
// DIR/vmlinuz, and run depmod -b DIR VERSION.
func OpenKernel(dir string) (*KernelTree, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	versions, err := filepath.Glob(filepath.Join(dir, "lib/modules/*/modules.dep"))
	if err != nil {
		return nil, err
	}
	if len(versions) != 1 {
		return nil, fmt.Errorf("open kernel %s: %d files lib/modules/VERSION/modules.dep instead of one "+
			"(depmod -b DIR VERSION makes it)", dir, len(versions))
	}
	k := &KernelTree{Name: dir, Modules: filepath.Dir(versions[0])}
	k.Version = filepath.Base(k.Modules)
	if k.Image, err = firstOf(filepath.Join(dir, directImage), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "boot", "vmlinuz-"+k.Version)); err != nil {
		return nil, fmt.Errorf("open kernel %s: %w", dir, err)
	}
	for _, b := range []string{filepath.Join(dir, "build"), filepath.Join(k.Modules, "build")} {
		if _, err := os.Stat(filepath.Join(b, "Makefile")); err == nil {
			k.Build = b
			break
		}
	}
	return k, nil
}

// directImage is the file beside vmlinuz that holds the same kernel unpacked,
// with the entry point that QEMU needs to start it without a boot loader.
const directImage = "vmlinux.pvh"

// unpackImage unpacks a bzImage's kernel, if xz packed it, the only way Debian
// does. An emulated processor takes longer over that than over all the rest of
// the boot: of 7.4 s to the end of Debian 12's it takes 4.4.
func unpackImage(ctx context.Context, bzImage, out string) error {
	// The offsets are those of Documentation/x86/boot.rst.
	const setupSects, magic, payloadOffset, header = 0x1f1, 0x202, 0x248, 0x250
	image, err := os.ReadFile(bzImage)
	if err != nil {
		return err
	}
	if len(image) < header || string(image[magic:magic+4]) != "HdrS" {
		return fmt.Errorf("unpack %s: not a bzImage", bzImage)
	}
	start := (uint64(image[setupSects])+1)*512 + uint64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	end := start + uint64(binary.LittleEndian.Uint32(image[payloadOffset+4:]))
	// Four bytes after the stream tell the size of the kernel.
	if end > uint64(len(image)) || end < start+4 {
		return fmt.Errorf("unpack %s: its payload does not lie within the file", bzImage)
	}
	xz, err := run.Tool("xz", "xz-utils")
	if err != nil {
		return err
	}
	var msg bytes.Buffer
	cmd := exec.CommandContext(ctx, xz, "-d", "-c")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(image[start:end-4]), &msg
	return writeTo(out, func(w io.Writer) error {
		cmd.Stdout = w
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("unpack %s with xz: %w\n%s", bzImage, err, msg.String())
		}
		return nil
	})
}

// firstOf returns the first of some paths that exists.
func firstOf(paths ...string) (string, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("none of %s exists", strings.Join(paths, ", "))
}

// fetchDebian fills dir with the newest kernel of a Debian suite in the layout
// of OpenKernel.
func fetchDebian(ctx context.Context, dir, name, suite string) error {
	start := time.Now()
	progress("%s: fetching the package lists of Debian %s", name, suite)
	scratch, err := os.MkdirTemp(dir, "apt-")
	if err != nil {
		return err
	}
	a, err := newApt(ctx, scratch, suite)
	if err != nil {
		return err
	}
	image, err := newestKernel(ctx, a)
	if err != nil {
		return err
	}
	version := strings.TrimPrefix(image, "linux-image-")
	headers := "linux-headers-" + version
	deps, err := a.depends(ctx, headers)
	if err != nil {
		return err
	}
	pkgs := []string{image, headers}
	for _, d := range deps {
		// The third dependency is the compiler; the machine's own is used.
		if strings.HasPrefix(d, "linux-headers-") || strings.HasPrefix(d, "linux-kbuild-") {
			pkgs = append(pkgs, d)
		}
	}
	if len(pkgs) != 4 {
		return fmt.Errorf("packages of %s: got %v, expected image, headers, common headers and kbuild", version, pkgs)
	}
	common, kbuild := pkgs[2], pkgs[3]
	if strings.HasPrefix(common, "linux-kbuild-") {
		common, kbuild = kbuild, common
	}

	progress("%s: downloading %s", name, strings.Join(pkgs, " "))
	debs, err := a.download(ctx, pkgs...)
	if err != nil {
		return err
	}
	progress("%s: unpacking", name)
	tree := filepath.Join(scratch, "tree")
	for _, deb := range debs {
		if err := unpackDeb(ctx, deb, tree); err != nil {
			return err
		}
	}
	if err := layOut(tree, dir, version, common, headers, kbuild); err != nil {
		return err
	}
	if err := unpackImage(ctx, filepath.Join(dir, "vmlinuz"), filepath.Join(dir, directImage)); err != nil {
		return err
	}
	depmod, err := run.Tool("depmod", "kmod")
	if err != nil {
		return err
	}
	if _, err := run.Output(ctx, depmod, "-b", dir, version); err != nil {
		return err
	}
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	progress("%s: kernel %s is ready after %.1f s", name, version, time.Since(start).Seconds())
	return nil
}

// kernelImage matches the package of a signed kernel image of the plain flavour.
var kernelImage = regexp.MustCompile(`^linux-image-[0-9].*[0-9]-amd64$`)

// newestKernel returns the package that Debian's metapackage stands for.
func newestKernel(ctx context.Context, a *apt) (string, error) {
	deps, err := a.depends(ctx, "linux-image-amd64")
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(deps, kernelImage.MatchString); i >= 0 {
		return deps[i], nil
	}
	return "", fmt.Errorf("find the kernel image: linux-image-amd64 depends on %v", deps)
}

// unpackDeb adds a package's files to a folder.
func unpackDeb(ctx context.Context, deb, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var fromMsg, toMsg bytes.Buffer
	from := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	// Another package may have made a folder a symbolic link to one.
	to := exec.CommandContext(ctx, "tar", "-x", "-C", dir, "--no-same-owner", "--keep-directory-symlink")
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	from.Stdout, from.Stderr = w, &fromMsg
	to.Stdin, to.Stderr = r, &toMsg
	err = errors.Join(from.Start(), to.Start())
	w.Close()
	r.Close()
	if err == nil {
		err = errors.Join(from.Wait(), to.Wait())
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w\n%s%s", filepath.Base(deb), err, fromMsg.String(), toMsg.String())
	}
	return nil
}

// layOut moves what the packages hold from tree to the layout of OpenKernel.
//
// Debian splits the headers of a kernel: what all flavours share, with the real
// Makefile, and one flavour's configuration with a Makefile that includes the
// other by its absolute path. Modules that look for features with grep in
// include/linux, as ScoutFS does, find nothing in the flavour's folder and turn
// them all off without a word. So the three packages become one directory,
// which also needs nothing to be installed.
func layOut(tree, dir, version, common, headers, kbuild string) error {
	build := filepath.Join(dir, "build")
	src := filepath.Join(tree, "usr/src")
	if err := os.Rename(filepath.Join(src, common), build); err != nil {
		return err
	}
	flavour := filepath.Join(src, headers)
	for _, link := range []string{"scripts", "tools"} {
		if err := os.Remove(filepath.Join(build, link)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(tree, "usr/lib", kbuild, link), filepath.Join(build, link)); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(flavour, link)); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(flavour, "Makefile")); err != nil {
		return err
	}
	if err := mergeInto(build, flavour); err != nil {
		return fmt.Errorf("merge the header packages: %w", err)
	}

	// The compiler that Debian built the kernel with need not be here.
	vars := filepath.Join(build, ".kernelvariables")
	text, err := os.ReadFile(vars)
	if err != nil {
		return err
	}
	text = regexp.MustCompile(`(?m)^(override )?(CC|CCACHE) .*\n`).ReplaceAll(text, nil)
	if err := os.WriteFile(vars, text, 0o644); err != nil {
		return err
	}

	if err := os.Rename(filepath.Join(tree, "boot/vmlinuz-"+version), filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	// The headers package put links to absolute paths beside the modules.
	modules := filepath.Join(tree, "lib/modules")
	for _, link := range []string{"build", "source"} {
		if err := os.Remove(filepath.Join(modules, version, link)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "lib"), 0o755); err != nil {
		return err
	}
	return os.Rename(modules, filepath.Join(dir, "lib/modules"))
}

// mergeInto moves the files of from to the same places below to. A file that is
// there already is an error.
func mergeInto(to, from string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		st, err := os.Lstat(dst)
		switch {
		case errors.Is(err, os.ErrNotExist):
			err = os.Rename(src, dst)
		case err == nil && st.IsDir() && e.IsDir():
			err = mergeInto(dst, src)
		case err == nil:
			err = fmt.Errorf("%s is in both trees", dst)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// progress tells a person what takes the time, on standard error.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vm: "+format+"\n", args...)
}
