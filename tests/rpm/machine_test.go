// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// machine is a throw-away root file system: the cached one, with an overlay for a
// test's changes. Each command gets its own namespaces for mounts, processes and
// network (without any interface), so that nothing is left on the host however the
// test ends.
type machine struct {
	t    *testing.T
	jail jail
}

// jail holds the parameters of the child process that becomes the command.
type jail struct {
	Lower  string // cached root, never written to
	Upper  string // folder for changes; with Copy, the root itself
	Copy   bool   // without overlays: Upper is a copy of Lower
	Mounts []bind
	Dir    string
	Env    []string
	Args   []string
}

// bind is a folder of the host to mount in the root.
type bind struct {
	Source, Target string
	Write          bool
}

// newMachine returns a fresh machine that looks like the RHEL family, with the folders
// mounted.
func newMachine(t *testing.T, mounts ...bind) *machine {
	t.Helper()
	return machineOf(t, elRoot, mounts...)
}

// machineOf returns a fresh machine made from a recipe.
func machineOf(t *testing.T, r *recipe, mounts ...bind) *machine {
	t.Helper()
	dir, err := os.MkdirTemp(runDir(t), "machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	m := &machine{t: t, jail: jail{Lower: r.root(t), Upper: dir, Mounts: mounts}}
	// The kernel refuses overlays on overlays, as in a container without a volume.
	if out, err := m.try("true"); err != nil {
		t.Logf("no overlay (%v: %s), copying the root instead", err, out)
		m.jail.Copy = true
		host(t, "", "cp", "-a", "--reflink=auto", m.jail.Lower+"/.", dir)
		m.run("true")
	}
	return m
}

// try runs a program in the machine, as root, and returns its output and error.
func (m *machine) try(args ...string) (string, error) { return m.tryAs(nil, args...) }

// tryAs is try with variables added to the environment.
func (m *machine) tryAs(env []string, args ...string) (string, error) {
	return m.tryFor(m.t.Context(), env, args...)
}

// tryFor is tryAs that kills the program, and all that it started, when ctx is done.
func (m *machine) tryFor(ctx context.Context, env []string, args ...string) (string, error) {
	j := m.jail
	j.Dir, j.Args = "/", args
	j.Env = append([]string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TZ=UTC",
	}, env...)
	text, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = []string{jailEnv + "=" + string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// run runs a program that must succeed and returns its output.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// sh runs a script that must succeed and returns its output.
func (m *machine) sh(script string) string {
	m.t.Helper()
	return m.run("sh", "-euc", script)
}

const jailEnv = "SCOUTFS_NOTIFY_TEST_JAIL"

// enterJail turns this process, already in new namespaces, into the command.
func enterJail(text string) error {
	var j jail
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	mount := func(src, dst, fstype string, flags uintptr, data string) error {
		if err := syscall.Mount(src, dst, fstype, flags, data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", src, dst, err)
		}
		return nil
	}
	if err := mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	top := j.Upper
	if !j.Copy {
		top = filepath.Join(j.Upper, "root")
		up, work := filepath.Join(j.Upper, "up"), filepath.Join(j.Upper, "work")
		for _, d := range []string{top, up, work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", j.Lower, up, work)
		if err := mount("overlay", top, "overlay", 0, opts); err != nil {
			return err
		}
	}
	if err := mount("proc", filepath.Join(top, "proc"), "proc", 0, ""); err != nil {
		return err
	}
	dev := filepath.Join(top, "dev")
	if err := mount("tmpfs", dev, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, node := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		dst := filepath.Join(dev, node)
		if err := os.WriteFile(dst, nil, 0o666); err != nil {
			return err
		}
		if err := mount("/dev/"+node, dst, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := os.Symlink("/proc/self/fd", filepath.Join(dev, "fd")); err != nil {
		return err
	}
	for _, b := range j.Mounts {
		dst := filepath.Join(top, b.Target)
		if err := os.MkdirAll(dst, 0o755); err != nil {
			return err
		}
		if err := mount(b.Source, dst, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
		if b.Write {
			continue
		}
		if err := mount("none", dst, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	if err := syscall.Chroot(top); err != nil {
		return fmt.Errorf("chroot %s: %w", top, err)
	}
	if err := os.Chdir(j.Dir); err != nil {
		return err
	}
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	path, err := exec.LookPath(j.Args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, j.Args, j.Env))
}

// runDir returns a folder for this run of the tests. It is in the cache because
// temporary files may be on an overlay or in memory. The end of the run removes it;
// the next run removes those of killed runs.
func runDir(t *testing.T) string {
	t.Helper()
	dir, err := runOnce()
	if err != nil {
		t.Fatalf("make a folder for this run: %v", err)
	}
	return dir
}

var runOnce = sync.OnceValues(func() (string, error) {
	cache, err := repo.CacheDir("rpm")
	if err != nil {
		return "", err
	}
	old, err := filepath.Glob(filepath.Join(cache, "run-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		// A run that still uses it holds the lock.
		if lock(dir) {
			if err := os.RemoveAll(dir); err != nil {
				return "", err
			}
		}
	}
	dir, err := os.MkdirTemp(cache, "run-")
	if err != nil {
		return "", err
	}
	if !lock(dir) {
		return "", fmt.Errorf("lock %s", dir)
	}
	return dir, nil
})

// lock locks a folder until this process ends. It returns false if another process
// has the lock.
func lock(dir string) bool {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

func TestMain(m *testing.M) {
	if text := os.Getenv(jailEnv); text != "" {
		fmt.Fprintln(os.Stderr, enterJail(text))
		os.Exit(125)
	}
	code := m.Run()
	if os.Getuid() == 0 {
		if dir, err := runOnce(); err == nil {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}
