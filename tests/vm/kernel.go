// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"cmp"
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

	"github.com/klauspost/compress/zstd"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// KernelTree is a kernel that can be booted and built against.
type KernelTree struct {
	Name    string // as passed to Kernel: "debian11", or the folder
	Version string // as uname -r prints it in the machine
	Image   string // path of the image that QEMU boots
	Modules string // path of lib/modules/VERSION
	Build   string // path of the build directory, for make -C; "" without headers
}

// debianKernels are those that come from Debian's packages, oldest first.
var debianKernels = []struct{ name, suite string }{
	{"debian11", "bullseye"},                     // 5.10, between the kernels of EL8 and EL9
	{"debian12", "bookworm"},                     // 6.1
	{"debian12-backports", "bookworm-backports"}, // 6.12, as EL10's
}

// KernelOr returns what to pass to [Kernel]: the folder KERNEL_DIR or the name KERNEL if
// the environment sets one, otherwise name.
func KernelOr(name string) string {
	return cmp.Or(os.Getenv("KERNEL_DIR"), os.Getenv("KERNEL"), name)
}

// KernelNames returns what to pass to [Kernel]: the one that the environment sets, as in
// [KernelOr], otherwise the names of all of Debian's kernels.
func KernelNames() []string {
	if name := KernelOr(""); name != "" {
		return []string{name}
	}
	var names []string
	for _, k := range debianKernels {
		names = append(names, k.name)
	}
	return names
}

// Kernel returns a kernel by its name, such as "debian11", which is downloaded
// once and then taken from the cache; or by a path with a slash in it, which is
// passed to [OpenKernel]. Calls from several goroutines and processes wait for each
// other.
func Kernel(ctx context.Context, name string) (*KernelTree, error) {
	if strings.Contains(name, "/") {
		return OpenKernel(name)
	}
	suite, err := debianSuite(name)
	if err != nil {
		return nil, err
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

// debianSuite returns the suite of a kernel of Debian's.
func debianSuite(name string) (string, error) {
	var names []string
	for _, k := range debianKernels {
		if k.name == name {
			return k.suite, nil
		}
		names = append(names, k.name)
	}
	return "", fmt.Errorf("find kernel %q: no such name; use %s, or the path of a folder with a slash in it", name, strings.Join(names, ", "))
}

// OpenKernel returns the kernel in a folder with this layout:
//
//	DIR/vmlinuz               or DIR/boot/vmlinuz-VERSION
//	DIR/lib/modules/VERSION/  the modules, with modules.dep; the only VERSION
//	DIR/build/                or DIR/lib/modules/VERSION/build; optional: the
//	                          directory with headers and scripts that external
//	                          modules are built against
//
// A kernel's RPM unpacked into DIR is almost there: copy its
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
		return nil, fmt.Errorf("open kernel %s: %d files lib/modules/VERSION/modules.dep instead of one; "+
			"depmod -b DIR VERSION makes it", dir, len(versions))
	}
	k := &KernelTree{Name: dir, Modules: filepath.Dir(versions[0])}
	k.Version = filepath.Base(k.Modules)
	k.Image, err = firstOf(filepath.Join(dir, directImage), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "boot", "vmlinuz-"+k.Version))
	if err != nil {
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

// directImage is the file beside vmlinuz with the same kernel uncompressed, whose
// entry point lets QEMU start it without a boot loader.
const directImage = "vmlinux.pvh"

// unpackImage decompresses the kernel in a bzImage, which has to be compressed with
// xz or, as Debian's newer ones are, with zstd. An emulated processor spends more time
// on that than on the rest of the boot: 4.4 of the 7.4 s that Debian 12's takes.
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
	// The stream is followed by the kernel's size in four bytes.
	if end > uint64(len(image)) || end < start+4 {
		return fmt.Errorf("unpack %s: its payload is not within the file", bzImage)
	}
	payload := image[start : end-4]
	if bytes.HasPrefix(payload, []byte("\x28\xb5\x2f\xfd")) {
		return unpackZstd(bzImage, payload, out)
	}
	xz, err := run.Tool("xz", "xz-utils")
	if err != nil {
		return err
	}
	var msg bytes.Buffer
	cmd := exec.CommandContext(ctx, xz, "-d", "-c")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(payload), &msg
	return writeTo(out, func(w io.Writer) error {
		cmd.Stdout = w
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("unpack %s with xz: %w\n%s", bzImage, err, msg.String())
		}
		return nil
	})
}

func unpackZstd(bzImage string, payload []byte, out string) error {
	// Kernels are compressed with the largest window there is.
	z, err := zstd.NewReader(bytes.NewReader(payload), zstd.WithDecoderMaxWindow(1<<31))
	if err != nil {
		return err
	}
	defer z.Close()
	return writeTo(out, func(w io.Writer) error {
		if _, err := z.WriteTo(w); err != nil {
			return fmt.Errorf("unpack %s with zstd: %w", bzImage, err)
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
	p, err := newestKernel(ctx, a)
	if err != nil {
		return err
	}

	pkgs := []string{p.image, p.headers, p.common, p.kbuild}
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
	if err := layOut(tree, dir, p); err != nil {
		return err
	}
	if err := unpackImage(ctx, filepath.Join(dir, "vmlinuz"), filepath.Join(dir, directImage)); err != nil {
		return err
	}
	depmod, err := run.Tool("depmod", "kmod")
	if err != nil {
		return err
	}
	if _, err := run.Output(ctx, depmod, "-b", dir, p.version); err != nil {
		return err
	}
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	progress("%s: kernel %s is ready after %.1f s", name, p.version, time.Since(start).Seconds())
	return nil
}

// kernelPackages names the Debian packages of a kernel: its image, and the three
// that together hold what modules are built against.
type kernelPackages struct{ version, image, headers, common, kbuild string }

// kernelImage matches the package of a signed kernel image of the plain flavour.
var kernelImage = regexp.MustCompile(`^linux-image-([0-9].*[0-9]-amd64)$`)

// newestKernel finds the kernel that Debian's metapackage stands for.
func newestKernel(ctx context.Context, a *apt) (p kernelPackages, err error) {
	deps, err := a.depends(ctx, "linux-image-amd64")
	if err != nil {
		return p, err
	}
	i := slices.IndexFunc(deps, kernelImage.MatchString)
	if i < 0 {
		return p, fmt.Errorf("find the kernel image: linux-image-amd64 depends on %v", deps)
	}
	p.image = deps[i]
	p.version = kernelImage.FindStringSubmatch(p.image)[1]
	p.headers = "linux-headers-" + p.version
	if deps, err = a.depends(ctx, p.headers); err != nil {
		return p, err
	}
	for _, d := range deps { // also on the compiler; the machine's own is used
		if strings.HasPrefix(d, "linux-headers-") {
			p.common = d
		} else if strings.HasPrefix(d, "linux-kbuild-") {
			p.kbuild = d
		}
	}
	if p.common == "" || p.kbuild == "" {
		return p, fmt.Errorf("find the common headers and kbuild of %s: it depends on %v", p.headers, deps)
	}
	return p, nil
}

// unpackDeb unpacks a package's files into a folder.
func unpackDeb(ctx context.Context, deb, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var fromMsg, toMsg bytes.Buffer
	from := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	// Another package may have put a symbolic link where this one has a folder.
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

// layOut moves the packages' files from tree to the layout of OpenKernel.
func layOut(tree, dir string, p kernelPackages) error {
	build := filepath.Join(dir, "build")
	if err := mergeHeaders(tree, build, p); err != nil {
		return fmt.Errorf("merge the header packages: %w", err)
	}

	// The compiler that Debian built the kernel with may be missing here.
	vars := filepath.Join(build, ".kernelvariables")
	text, err := os.ReadFile(vars)
	if err != nil {
		return err
	}
	text = regexp.MustCompile(`(?m)^(override )?(CC|CCACHE) .*\n`).ReplaceAll(text, nil)
	if err := os.WriteFile(vars, text, 0o644); err != nil {
		return err
	}

	if err := os.Rename(filepath.Join(tree, "boot/vmlinuz-"+p.version), filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	// Beside the modules, the headers package has links to absolute paths.
	modules := filepath.Join(tree, "lib/modules")
	for _, link := range []string{"build", "source"} {
		if err := os.Remove(filepath.Join(modules, p.version, link)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "lib"), 0o755); err != nil {
		return err
	}
	return os.Rename(modules, filepath.Join(dir, "lib/modules"))
}

// mergeHeaders makes one build directory of the packages' three.
//
// Debian splits a kernel's headers into what all flavours share, with the real
// Makefile, and each flavour's configuration, with a Makefile that includes the
// other one by its absolute path. Modules that detect features by running grep on
// include/linux, as ScoutFS does, find nothing in the flavour's folder and silently
// turn them all off. One directory avoids that, and needs no package installed.
func mergeHeaders(tree, build string, p kernelPackages) error {
	src := filepath.Join(tree, "usr/src")
	if err := os.Rename(filepath.Join(src, p.common), build); err != nil {
		return err
	}
	flavour := filepath.Join(src, p.headers)
	for _, link := range []string{"scripts", "tools"} {
		if err := os.Remove(filepath.Join(build, link)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(tree, "usr/lib", p.kbuild, link), filepath.Join(build, link)); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(flavour, link)); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(flavour, "Makefile")); err != nil {
		return err
	}
	return mergeInto(build, flavour)
}

// mergeInto moves the files of from to the same places below to. It is an error if
// one exists there already.
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

// progress reports on standard error what is taking time.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vm: "+format+"\n", args...)
}
