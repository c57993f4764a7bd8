// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// ErrNoSource says that SCOUTFS_SRC is not set. Skip what needs ScoutFS's source,
// which is not part of this project.
var ErrNoSource = errors.New("SCOUTFS_SRC is not set; it names a ScoutFS work tree or bare repository with its tags")

// ScoutFSBuild asks for a build of ScoutFS.
type ScoutFSBuild struct {
	Source  string         // work tree or bare repository; "" means SCOUTFS_SRC
	Version string         // a tag, such as "v1.30"; or a name for Rev
	Rev     string         // what to build, as git names it; "" means the tag
	Kernel  *KernelTree    // to build the module for; without Modules its symbols need not be known
	Series  *series.Series // to apply; nil builds upstream's own tree
}

// ScoutFSTree is a built ScoutFS.
type ScoutFSTree struct {
	Dir    string // the tree that was built, patched
	Module string // path of scoutfs.ko
	Util   string // path of the scoutfs command
}

// ScoutFS builds a version of ScoutFS from the user's repository: the command, and
// the module with upstream's own make, which runs sparse and treats warnings as
// errors. The module's build must print nothing but its steps. Nothing is written
// to the repository. The result is cached by tag, patches, kernel and compiler.
func ScoutFS(ctx context.Context, b ScoutFSBuild) (*ScoutFSTree, error) {
	if b.Source == "" {
		if b.Source = os.Getenv("SCOUTFS_SRC"); b.Source == "" {
			return nil, ErrNoSource
		}
	}
	if b.Kernel.Build == "" {
		return nil, fmt.Errorf("build ScoutFS: kernel %s has no build directory; see OpenKernel for where it goes", b.Kernel.Name)
	}
	var err error
	if b.Source, err = filepath.Abs(b.Source); err != nil {
		return nil, err
	}
	for name, pkg := range map[string]string{"sparse": "sparse", "git": "git", "make": "make", "gcc": "gcc"} {
		if _, err := run.Tool(name, pkg); err != nil {
			return nil, err
		}
	}
	if b.Rev == "" {
		b.Rev = "refs/tags/" + b.Version
	}
	commit, err := run.Output(ctx, "git", "-C", b.Source, "rev-parse", "--verify", "--quiet", "--end-of-options", b.Rev+"^{commit}")
	if err != nil {
		return nil, fmt.Errorf("find %s in %s (git fetch --tags may help): %w", b.Rev, b.Source, err)
	}
	kind := "upstream"
	var patches []string
	if b.Series != nil {
		kind, patches = "patched", b.Series.Paths()
	}
	key, err := b.key(ctx, strings.TrimSpace(commit), patches)
	if err != nil {
		return nil, err
	}
	name := strings.Join([]string{b.Version, kind, b.Kernel.Version, key}, "-")
	dir, err := repo.Cached("scoutfs", name, func(tmp string) error { return b.build(ctx, tmp, kind, patches) })
	if err != nil {
		return nil, fmt.Errorf("build ScoutFS %s (%s) for kernel %s: %w", b.Version, kind, b.Kernel.Name, err)
	}
	return &ScoutFSTree{
		Dir:    filepath.Join(dir, "tree"),
		Module: filepath.Join(dir, "tree/kmod/src/scoutfs.ko"),
		Util:   filepath.Join(dir, "tree/utils/src/scoutfs"),
	}, nil
}

// key identifies everything that the build depends on.
func (b *ScoutFSBuild) key(ctx context.Context, commit string, patches []string) (string, error) {
	h := sha256.New()
	gcc, err := run.Output(ctx, "gcc", "--version")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(h, "%s\n%s\n%s\n", commit, b.Kernel.Version, gcc)
	// Two kernels of one version can differ in these.
	inputs := append([]string{filepath.Join(b.Kernel.Build, ".config"), filepath.Join(b.Kernel.Build, "Module.symvers")}, patches...)
	for _, p := range inputs {
		text, err := os.ReadFile(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		fmt.Fprintf(h, "%d\n%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// git runs git without those of the user's settings that could change the result:
// hooks, signatures, line ends.
func (b *ScoutFSBuild) git(ctx context.Context, dir string, args ...string) (string, error) {
	argv := []string{"git", "-C", dir, "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false",
		"-c", "core.autocrlf=false", "-c", "advice.detachedHead=false",
		"-c", "user.name=scoutfs-notify", "-c", "user.email=scoutfs-notify@localhost"}
	return run.Command{Env: []string{"GIT_TERMINAL_PROMPT=0"}, Argv: append(argv, args...)}.Output(ctx)
}

// build fills dir with the patched tree and builds it.
func (b *ScoutFSBuild) build(ctx context.Context, dir, kind string, patches []string) error {
	start := time.Now()
	tree := filepath.Join(dir, "tree")
	// The objects are shared, so that git am --3way finds the blobs it needs.
	if _, err := b.git(ctx, dir, "clone", "--quiet", "--shared", "--no-checkout", b.Source, tree); err != nil {
		return err
	}
	if _, err := b.git(ctx, tree, "checkout", "--quiet", "--detach", b.Rev); err != nil {
		return err
	}
	if len(patches) > 0 {
		if _, err := b.git(ctx, tree, append([]string{"am", "--quiet", "--3way", "--"}, patches...)...); err != nil {
			return fmt.Errorf("apply the series in %s: %w", b.Series.Dir, err)
		}
	}
	progress("ScoutFS %s (%s): building the module for kernel %s, which takes a minute or two", b.Version, kind, b.Kernel.Version)
	args := []string{"SK_KSRC=" + b.Kernel.Build, noBTF}
	if b.Kernel.Modules == "" {
		args = append(args, "KBUILD_MODPOST_WARN=1")
	}
	if err := strictMake(ctx, filepath.Join(tree, "kmod"), args...); err != nil {
		return err
	}
	progress("ScoutFS %s (%s): building the command", b.Version, kind)
	if _, err := run.Output(ctx, "nice", "make", "-j2", "-C", filepath.Join(tree, "utils")); err != nil {
		return fmt.Errorf("build utils (it needs the Debian packages libblkid-dev uuid-dev libssl-dev sparse): %w", err)
	}
	progress("ScoutFS %s (%s): ready after %.0f s", b.Version, kind, time.Since(start).Seconds())
	return nil
}

// kbuildLine matches what a build without warnings prints: its steps, the commands
// of upstream's own Makefile, and kbuild's notes that another compiler built the
// kernel and that there is no vmlinux with type information, nor any symbols. Newer
// assemblers make no symbols for sections, of which EL8's objtool complains.
var kbuildLine = regexp.MustCompile(`^(\s*` +
	`|  ((CC|LD|AR|AS|CHECK|MODPOST|BTF|GEN|UPD) .*|Building modules, stage 2\.)` +
	`|make(\[\d+\])?: (Entering|Leaving) directory .*` +
	`|\S*make .*CONFIG_SCOUTFS_FS=m.*` +
	`|warning: the compiler differs from the one used to build the kernel` +
	`|  The kernel was built by: .*|  You are using: .*` +
	`|Skipping BTF generation for .*` +
	`|\s*WARNING: Symbol version dump .*` +
	`|\s+(is missing; modules will have no|Modules may not have) dependencies (and|or) modversions\.` +
	`|\s+You may get many unresolved symbol (warnings|errors)\.` +
	`|WARNING: modpost: ("\w+" \[.*\] undefined!|suppressed \d+ unresolved symbol warnings .*)` +
	`|.*: warning: objtool: missing symbol for section .*` +
	`)$`)

// strictMake runs make and treats any line of output that is not kbuild's own as an
// error. It cannot use make -s, with which kbuild discards what commands print, even
// the findings of sparse.
func strictMake(ctx context.Context, dir string, args ...string) error {
	out, err := run.Command{Argv: append([]string{"nice", "make", "-j2", "-C", dir}, args...)}.Combined(ctx)
	var loud []string
	for line := range strings.Lines(out) {
		if line = strings.TrimRight(line, "\n"); !kbuildLine.MatchString(line) {
			loud = append(loud, line)
		}
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.Join(loud, "\n"))
	}
	if len(loud) > 0 {
		return fmt.Errorf("make -C %s printed more than its steps:\n%s", dir, strings.Join(loud, "\n"))
	}
	return nil
}

// Config returns a machine for this ScoutFS: with the module loaded, the command,
// two empty disks, and FS=scoutfs in the environment, which tells the guest's tests
// to make and mount it.
func (s *ScoutFSTree) Config(k *KernelTree) Config {
	return Config{
		Kernel:  k,
		Modules: []string{s.Module},
		Files:   map[string]File{"/usr/sbin/scoutfs": {Source: s.Util}},
		Disks:   []int64{8 << 30, 16 << 30},
		Env:     []string{"FS=scoutfs"},
	}
}
