// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// kernels are the sanitizer kernels, each with a file of its own in config.
var kernels = []string{"kasan", "kcsan"}

// baseKernel is the kernel of vm.Kernel whose source they are built from.
const baseKernel = "debian11"

//go:embed config
var configs embed.FS

// configuration returns that of a kernel, as lines for its .config.
func configuration(name string) (string, error) {
	var all strings.Builder
	for _, file := range []string{"machine", name} {
		text, err := configs.ReadFile("config/" + file + ".config")
		if err != nil {
			return "", fmt.Errorf("find kernel %q: no such one; there are %s", name, strings.Join(kernels, " and "))
		}
		all.Write(text)
	}
	return all.String(), nil
}

// buildKernel returns the folder, for vm.OpenKernel and KERNEL_DIR, with a sanitizer
// kernel. It is built once for each source, configuration and compiler.
func buildKernel(ctx context.Context, name string) (string, error) {
	config, err := configuration(name)
	if err != nil {
		return "", err
	}
	archive, err := vm.KernelSource(ctx, baseKernel)
	if err != nil {
		return "", err
	}
	gcc, err := run.Output(ctx, "gcc", "--version")
	if err != nil {
		return "", err
	}
	st, err := os.Stat(archive)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s %d\n%s\n%s", filepath.Base(archive), st.Size(), gcc, config))
	dir, err := repo.Cached("kernels", name+"-"+hex.EncodeToString(key[:6]), func(tmp string) error {
		b := builder{name: name, dir: tmp, tree: filepath.Join(tmp, "build"), start: time.Now()}
		return b.build(ctx, archive, config)
	})
	if err != nil {
		return "", fmt.Errorf("build kernel %s: %w", name, err)
	}
	return dir, nil
}

// builder is one build of a kernel.
type builder struct {
	name  string
	dir   string // to be filled
	tree  string // the source in it, which modules will be built against
	start time.Time
}

func (b *builder) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "sanitize: %s after %v: %s\n", b.name, time.Since(b.start).Round(time.Second), fmt.Sprintf(format, args...))
}

func (b *builder) build(ctx context.Context, archive, config string) error {
	b.say("unpacking %s", filepath.Base(archive))
	if err := vm.UnpackSource(ctx, archive, b.tree); err != nil {
		return err
	}
	if err := b.excuse(); err != nil {
		return err
	}
	if err := b.configure(ctx, config); err != nil {
		return err
	}
	if err := b.compile(ctx); err != nil {
		return err
	}
	if err := b.layOut(ctx); err != nil {
		return err
	}
	b.say("ready")
	return nil
}

func (b *builder) make(ctx context.Context, args ...string) (string, error) {
	return run.Output(ctx, append([]string{"make", "-s", "-C", b.tree}, args...)...)
}

// plain are folders of code that this project's does not reach with anything of its own.
// Instrumented they would take twice as long to compile.
var plain = []string{
	"arch/x86/events", "arch/x86/pci", "crypto", "drivers/acpi", "drivers/base", "drivers/char", "drivers/clocksource",
	"drivers/pci", "drivers/tty", "net/core", "net/ethtool", "net/ipv4", "net/netlink", "net/sched",
}

// excuse has the compiler leave those as they are.
func (b *builder) excuse() error {
	for _, dir := range plain {
		err := filepath.WalkDir(filepath.Join(b.tree, dir), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.Name() != "Makefile" {
				return err
			}
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("\nKASAN_SANITIZE := n\nKCSAN_SANITIZE := n\nUBSAN_SANITIZE := n\n")
			return errors.Join(err, f.Close())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// configure writes the tree's .config. Kconfig silently drops what depends on something
// that is missing, so each option is looked for afterwards.
func (b *builder) configure(ctx context.Context, config string) error {
	if _, err := b.make(ctx, "tinyconfig"); err != nil {
		return err
	}
	file := filepath.Join(b.tree, ".config")
	tiny, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// Of two lines for an option, Kconfig takes the later one.
	if err := os.WriteFile(file, append(tiny, config...), 0o644); err != nil {
		return err
	}
	if _, err := b.make(ctx, "olddefconfig"); err != nil {
		return err
	}
	got, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return checkConfig(string(got), config)
}

// checkConfig returns an error that names the options of want that a .config has not.
func checkConfig(got, want string) error {
	set := map[string]string{}
	for line := range strings.Lines(got) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			set[name] = value
		}
	}
	var missing []string
	for line := range strings.Lines(want) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if has := set[name]; has != value && (value != "n" || has != "") {
			missing = append(missing, fmt.Sprintf("%s=%s is %q", name, value, has))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("configure the kernel: Kconfig does not take %s", strings.Join(missing, ", "))
	}
	return nil
}

// compile builds the image, and what modules are built against, and counts the files
// while it does.
func (b *builder) compile(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "nice", "make", "-j"+strconv.Itoa(jobs()), "-C", b.tree, "bzImage", "modules")
	cmd.Env = run.Environ()
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var msg bytes.Buffer
	cmd.Stderr = &msg
	if err := cmd.Start(); err != nil {
		return err
	}
	files, said := 0, time.Now()
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if !strings.HasPrefix(sc.Text(), "  CC ") && !strings.HasPrefix(sc.Text(), "  AS ") {
			continue
		}
		if files++; time.Since(said) > 15*time.Second {
			said = time.Now()
			b.say("%d files compiled, of about 1,300", files)
		}
	}
	_, copyErr := io.Copy(io.Discard, out) // if a line was too long
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("make: %w; it may need the Debian packages bc bison flex libelf-dev libssl-dev\n%s", err, msg.String())
	}
	b.say("%d files compiled", files)
	return copyErr
}

// jobs returns how many compilers run at once.
func jobs() int {
	if n, err := strconv.Atoi(os.Getenv("JOBS")); err == nil && n > 0 {
		return n
	}
	return 2
}

// keep are the parts of the tree that building a module needs.
var keep = []string{".config", "Kconfig", "Makefile", "Module.symvers", "arch", "include", "scripts", "tools"}

// object matches what the build left that building a module does not need.
var object = regexp.MustCompile(`\.(o|a|ko|mod|cmd)$`)

// layOut makes the layout of vm.OpenKernel, and removes most of the 3 GB of the build.
func (b *builder) layOut(ctx context.Context) error {
	version, err := b.make(ctx, "kernelrelease")
	if err != nil {
		return err
	}
	version = strings.TrimSpace(version)
	if _, err := b.make(ctx, "modules_install", "INSTALL_MOD_PATH="+b.dir, "DEPMOD=true"); err != nil {
		return err
	}
	modules := filepath.Join(b.dir, "lib/modules", version)
	for _, link := range []string{"build", "source"} {
		if err := os.Remove(filepath.Join(modules, link)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	depmod, err := run.Tool("depmod", "kmod")
	if err != nil {
		return err
	}
	if _, err := run.Output(ctx, depmod, "-b", b.dir, version); err != nil {
		return err
	}
	// Not vmlinux.pvh: that entry point runs before KASAN's shadow memory exists.
	if err := os.Rename(filepath.Join(b.tree, "arch/x86/boot/bzImage"), filepath.Join(b.dir, "vmlinuz")); err != nil {
		return err
	}
	return b.prune()
}

func (b *builder) prune() error {
	entries, err := os.ReadDir(b.tree)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(keep, e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(b.tree, e.Name())); err != nil {
			return err
		}
	}
	return filepath.WalkDir(filepath.Join(b.tree, "arch"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !object.MatchString(path) {
			return err
		}
		return os.Remove(path)
	})
}
