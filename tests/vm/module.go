// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// neededBy names the modules that others request at run time, by the name of an
// algorithm, and therefore do not list as dependencies.
var neededBy = map[string][]string{
	"libcrc32c": {"crc32c_generic"},
	"ext4":      {"crc32c_generic"},
}

// moduleName returns the kernel's name for the module in a file.
func moduleName(file string) string {
	name := path.Base(file)
	if i := strings.Index(name, ".ko"); i >= 0 {
		name = name[:i]
	}
	return strings.ReplaceAll(name, "-", "_")
}

// moduleIndex knows a kernel's own modules by name.
type moduleIndex struct {
	files   map[string]string   // name -> path below lib/modules/VERSION
	deps    map[string][]string // name -> names
	builtin map[string]bool
}

func (k *KernelTree) moduleIndex() (*moduleIndex, error) {
	x := &moduleIndex{files: map[string]string{}, deps: map[string][]string{}, builtin: map[string]bool{}}
	text, err := os.ReadFile(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		file, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return nil, fmt.Errorf("parse %s: no colon in %q", filepath.Join(k.Modules, "modules.dep"), line)
		}
		name := moduleName(file)
		x.files[name] = file
		for _, d := range strings.Fields(deps) {
			x.deps[name] = append(x.deps[name], moduleName(d))
		}
	}
	text, err = os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		x.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return x, nil
}

// moduleFile is a module to load and the path of its file on the host.
type moduleFile struct{ name, path string }

// resolve returns the modules to load for what is wanted, each after its
// dependencies. A name with a slash or ending in .ko is a file on the host; any other
// is one of the kernel's own modules.
func (k *KernelTree) resolve(want []string) ([]moduleFile, error) {
	x, err := k.moduleIndex()
	if err != nil {
		return nil, fmt.Errorf("read the modules of kernel %s: %w", k.Name, err)
	}
	r := resolver{k: k, index: x, seen: map[string]bool{}}
	for _, w := range want {
		if err := r.add(w, ""); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

// resolver is the state of one resolve.
type resolver struct {
	k     *KernelTree
	index *moduleIndex
	seen  map[string]bool
	order []moduleFile
}

// add appends a module after its dependencies. by tells in an error who needs it.
func (r *resolver) add(want, by string) error {
	name := moduleName(want)
	file, deps, err := r.find(want, name, by)
	if err != nil || r.seen[name] {
		return err
	}
	r.seen[name] = true
	if file == "" {
		return nil
	}
	for _, d := range slices.Concat(neededBy[name], deps) {
		if err := r.add(d, ", which "+name+" needs"); err != nil {
			return err
		}
	}
	r.order = append(r.order, moduleFile{name, file})
	return nil
}

// find returns a module's file and dependencies, no file for one that is built in.
func (r *resolver) find(want, name, by string) (file string, deps []string, err error) {
	if strings.Contains(want, "/") || strings.HasSuffix(want, ".ko") {
		deps, err = moduleDepends(want)
		return want, deps, err
	}
	if r.index.builtin[name] {
		return "", nil, nil
	}
	rel, ok := r.index.files[name]
	if !ok && !r.seen[name] { // seen: as a file
		return "", nil, fmt.Errorf("find module %s%s: kernel %s (%s) has none of that name", want, by, r.k.Name, r.k.Version)
	}
	// modules.dep lists the nearest first.
	deps = slices.Clone(r.index.deps[name])
	slices.Reverse(deps)
	return filepath.Join(r.k.Modules, rel), deps, nil
}

// moduleDepends returns the dependencies that a module file lists.
func moduleDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", file, err)
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("read module %s: no section .modinfo; not a kernel module", file)
	}
	data, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", file, err)
	}
	var deps []string
	for _, field := range bytes.Split(data, []byte{0}) {
		if d, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(d) > 0 {
			deps = append(deps, strings.Split(string(d), ",")...)
		}
	}
	return deps, nil
}

// readModule returns a module's bytes, decompressed if a distribution compressed
// them: not every kernel can do that itself.
func readModule(ctx context.Context, file string) ([]byte, error) {
	unpack := map[string][]string{".xz": {"xz", "xz-utils"}, ".zst": {"zstd", "zstd"}, ".gz": {"gzip", "gzip"}}[filepath.Ext(file)]
	if unpack == nil {
		return os.ReadFile(file)
	}
	t, err := run.Tool(unpack[0], unpack[1])
	if err != nil {
		return nil, err
	}
	out, err := run.Output(ctx, t, "-d", "-c", "-q", file)
	return []byte(out), err
}

// ModuleSource is an external module to build with [BuildModule].
type ModuleSource struct {
	Dir   string            // folder with a Kbuild or Makefile; its files are copied
	Files map[string]string // more files: name in the build folder -> path here
	Out   string            // folder to build in; created if missing, kept for rebuilds
	Make  []string          // more arguments for make, such as C=1
}

// noBTF is a variable for make that leaves out type information for BPF, which needs pahole.
const noBTF = "CONFIG_DEBUG_INFO_BTF_MODULES="

// BuildModule builds an external module and returns the path of its .ko file, the
// only one that the build may make. Warnings are errors, and an error holds what
// the compiler printed. Only one build at a time may use the same Out.
func BuildModule(ctx context.Context, k *KernelTree, src ModuleSource) (string, error) {
	if k.Build == "" {
		return "", fmt.Errorf("build module %s: kernel %s has no build directory; see OpenKernel for where it goes", src.Dir, k.Name)
	}
	out, err := filepath.Abs(src.Out)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	files := map[string]string{}
	entries, err := os.ReadDir(src.Dir)
	if err != nil {
		return "", fmt.Errorf("build module: %w", err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			files[e.Name()] = filepath.Join(src.Dir, e.Name())
		}
	}
	for name, p := range src.Files {
		files[name] = p
	}
	for name, p := range files {
		if err := copyIfChanged(filepath.Join(out, name), p); err != nil {
			return "", fmt.Errorf("build module %s: %w", src.Dir, err)
		}
	}
	argv := append([]string{"make", "-C", k.Build, "M=" + out, "KCFLAGS=-Werror", noBTF, "modules"}, src.Make...)
	if _, err := run.Output(ctx, argv...); err != nil {
		return "", fmt.Errorf("build module %s for kernel %s: %w", src.Dir, k.Name, err)
	}
	kos, err := filepath.Glob(filepath.Join(out, "*.ko"))
	if err != nil {
		return "", err
	}
	if len(kos) != 1 {
		return "", fmt.Errorf("build module %s: %d .ko files in %s instead of one", src.Dir, len(kos), out)
	}
	return kos[0], nil
}

// copyIfChanged copies a file unless dst is equal already, and keeps its time stamp
// then, for make.
func copyIfChanged(dst, src string) error {
	text, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(dst); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dst, text, 0o644)
}

// sharedLibs returns the host's paths of the libraries and the loader that a dynamic
// program needs; none for a static one or a script.
func sharedLibs(ctx context.Context, program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, nil // not ELF
	}
	defer f.Close()
	if !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, nil
	}
	out, err := run.Output(ctx, "ldd", program)
	if err != nil {
		return nil, err
	}
	var libs []string
	sc := bufio.NewScanner(strings.NewReader(out))
	for sc.Scan() {
		// "libm.so.6 => /lib/.../libm.so.6 (0x...)", "/lib64/ld... (0x...)",
		// "linux-vdso.so.1 (0x...)"
		line := sc.Text()
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("find the libraries of %s: %s", program, strings.TrimSpace(line))
		}
		for _, f := range strings.Fields(line) {
			if strings.HasPrefix(f, "/") {
				libs = append(libs, f)
			}
		}
	}
	return libs, sc.Err()
}
