// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// Config describes one machine and the program to run in it.
type Config struct {
	Kernel *KernelTree

	// Argv is the program and its arguments. A name without a slash is looked
	// up in the guest's PATH: /usr/bin, /usr/sbin, /bin, /sbin. Busybox's
	// programs are in /bin.
	Argv []string
	Env  []string // "NAME=value", for the program

	// Modules are loaded in this order, each after its dependencies, before the
	// program starts: .ko files by path, the kernel's own by name. What disks and
	// Root need is always loaded.
	Modules []string
	// LaterModules are only put into the machine for the program to load, with their
	// dependencies. The Spec at proto.SpecPath has their paths in the order to load them.
	LaterModules []string

	Files map[string]File // by absolute path in the guest
	Disks []int64         // sizes in bytes of sparse empty disks: /dev/vda, ...
	// Images are paths of raw disk images on the host, which become the next disks.
	// What the machine writes to them is lost when it ends.
	Images []string

	// Root is the path of an ext4 image with systemd, or "". The machine boots it
	// with systemd as PID 1 and the program as a service of multi-user.target. Root
	// is /dev/vda then, and Disks start at /dev/vdb. Modules are loaded and Files
	// added before systemd starts. What the machine writes to Root is lost.
	Root string

	Memory int // MiB; 0 means 1024
	CPUs   int // 0 means 2
	// Counted has the machine's clocks count instructions of its only CPU, each a
	// nanosecond. A time in which it has nothing to do is over at once.
	Counted bool
	Append  string // more of the kernel's command line

	// Again is the line that a program prints if its machine is useless through no
	// fault of what is tested. Run then boots the machine again, up to twice, and says
	// so, unless a test failed before.
	Again string
	// Resume, if it is not nil, has Run do so up to 100 times. It is given
	// the last machine's log and returns what the next one gets besides in its environment.
	Resume func(log string) (env []string, err error)

	// Timeout limits the machine's life from its first program on, to which it has 4
	// minutes; 0 means 3 minutes. The context's deadline is one for all of it.
	Timeout time.Duration

	// Output gets the program's output, as it comes. It is called from one
	// goroutine.
	Output io.Writer
	// Log is the file for the kernel's console and the program's output, each line
	// with the seconds since the start; "" means none.
	Log string
	// AllowConsole matches kernel messages that look like trouble but are expected.
	AllowConsole []*regexp.Regexp
	// Known tells apart reports that are expected as a whole.
	Known []Known
}

// Result is how a machine ended.
type Result struct {
	Status  int           // the program's exit status, 128 plus the signal if killed
	Elapsed time.Duration // from the start of QEMU to its end
	// Known counts the reports that Config.Known told apart, by its names.
	Known map[string]int
}

// Errors of [Boot], for errors.Is.
var (
	// ErrKernel: the kernel reported trouble on its console.
	ErrKernel = errors.New("the kernel reported trouble")
	// ErrNoEnd: the machine stopped before its last line.
	ErrNoEnd = errors.New("the machine did not reach its last line")
	// ErrNoBoot: the machine's kernel did not get to its first program.
	ErrNoBoot = errors.New("the kernel did not get to its first program")
	// ErrTimeout: the machine was killed at its time limit.
	ErrTimeout = errors.New("the machine was killed at its time limit")
)

// baseModules returns those that give every machine disks, and a file system for Root.
func baseModules(c *Config) []string {
	if c.Root != "" {
		return []string{"virtio_pci", "virtio_blk", "ext4"}
	}
	return []string{"virtio_pci", "virtio_blk"}
}

const guestPath = "/usr/bin:/usr/sbin:/bin:/sbin"

// Boot boots a machine, runs a program in it and returns once QEMU has ended. The
// error is about the machine: a program that fails only sets Status. The Result is
// nil if QEMU did not start; otherwise it is valid even with an error, with Status
// -1 if the program did not end. Several machines can run at once.
func Boot(ctx context.Context, c Config) (*Result, error) {
	if c.Kernel == nil || len(c.Argv) == 0 {
		return nil, errors.New("boot: Config needs a Kernel and an Argv")
	}
	qemu, err := run.Tool("qemu-system-x86_64", "qemu-system-x86")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	initProgram := filepath.Join(dir, "init")
	if err := goBuild(ctx, "amd64", "./tests/vm/init", initProgram, "build"); err != nil {
		return nil, err
	}
	spec := newSpec(&c)
	initramfs := filepath.Join(dir, "initramfs")
	if err := makeInitramfs(ctx, initramfs, initProgram, &c, spec); err != nil {
		return nil, fmt.Errorf("make the initramfs: %w", err)
	}
	args, err := qemuArgs(&c, dir, initramfs)
	if err != nil {
		return nil, err
	}

	for try := 1; ; try++ {
		res, err := boot(ctx, &c, spec.Nonce, qemu, args)
		if try == bootTries || !errors.Is(err, ErrNoBoot) || ctx.Err() != nil {
			return res, err
		}
		kept := ""
		if c.Log != "" {
			kept = "; the log: " + c.Log + ".noboot"
			if err := os.Rename(c.Log, c.Log+".noboot"); err != nil {
				return res, err
			}
		}
		fmt.Fprintf(os.Stderr, "vm: kernel %s did not get to its first program: booting it again%s\n", c.Kernel.Name, kept)
	}
}

// bootTries is how often a machine is booted whose kernel does not get anywhere.
const bootTries = 3

// boot runs QEMU once.
func boot(ctx context.Context, c *Config, nonce, qemu string, args []string) (*Result, error) {
	m := &machine{
		nonce: nonce, output: c.Output, trouble: trouble{allow: c.AllowConsole, known: c.Known}, status: -1,
		up: make(chan struct{}),
	}
	if m.output == nil {
		m.output = io.Discard
	}
	if c.Log != "" {
		if err := os.MkdirAll(filepath.Dir(c.Log), 0o755); err != nil {
			return nil, err
		}
		f, err := os.Create(c.Log)
		if err != nil {
			return nil, fmt.Errorf("create the machine's log: %w", err)
		}
		defer f.Close()
		m.log = f
	}
	return m.run(ctx, cmp.Or(c.Timeout, 3*time.Minute), qemu, args)
}

// bootLimit is how long a machine may take to its first program. On a busy host the
// emulated processors now and then do nothing but take interrupts, half-way, for as long
// as they are let.
var bootLimit = 4 * time.Minute

// newSpec returns what PID 1 is to do, still without the modules.
func newSpec(c *Config) *proto.Spec {
	spec := &proto.Spec{
		Nonce: rand.Text(),
		Disks: len(c.Disks) + len(c.Images),
		Root:  c.Root != "",
		Argv:  c.Argv,
		Env: append([]string{
			"PATH=" + guestPath, "HOME=/root", "TMPDIR=/tmp", proto.EnvGuest + "=" + c.Kernel.Name,
		}, c.Env...),
	}
	if spec.Root {
		spec.Disks++
		spec.Files = slices.Sorted(maps.Keys(c.Files))
	}
	return spec
}

// qemuArgs makes the disks and returns QEMU's arguments.
func qemuArgs(c *Config, dir, initramfs string) ([]string, error) {
	memory, cpus := c.Memory, c.CPUs
	if memory == 0 {
		memory = 1024
	}
	if cpus == 0 {
		cpus = 2
	}
	// An emulated machine on a busy host is slow, not stuck, so the limit for RCU
	// stalls is high. nokaslr makes addresses in the log match the module's.
	cmdline := strings.Join([]string{
		"console=ttyS0", "panic=-1", "oops=panic", "nokaslr", "random.trust_cpu=on",
		"rcupdate.rcu_cpu_stall_timeout=60", c.Append,
	}, " ")
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// With five levels of page tables, KASAN finds fault with any interrupt that comes
		// while 5.10 looks at its processor, and lockdep is off from then on.
		"-machine", "pc", "-cpu", "max,la57=off", "-m", strconv.Itoa(memory),
		"-kernel", c.Kernel.Image, "-initrd", initramfs, "-append", cmdline,
		// exec.Cmd numbers its ExtraFiles from descriptor 3.
		"-chardev", "socket,id=console,fd=3", "-serial", "chardev:console",
		"-chardev", "socket,id=program,fd=4", "-serial", "chardev:program",
	}
	if c.Counted {
		// With sleep=on a wait lasts until the host gets round to ending it, milliseconds later.
		args = append(args, "-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off")
	} else {
		// The tables by which a kernel without ACPI finds processors have one a socket.
		args = append(args, "-accel", "tcg,thread=multi", "-smp", fmt.Sprintf("%d,sockets=%d", cpus, cpus))
	}
	if n := len(c.Disks) + len(c.Images); n > 25 {
		return nil, fmt.Errorf("make %d disks: at most 25 are possible", n)
	}
	const drive = "if=virtio,format=raw,cache=unsafe,discard=unmap,file="
	if c.Root != "" {
		args = append(args, "-drive", "snapshot=on,"+drive+c.Root)
	}
	for i, size := range c.Disks {
		p := filepath.Join(dir, fmt.Sprintf("disk%d", i))
		f, err := os.Create(p)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			return nil, fmt.Errorf("make a disk of %d bytes: %w", size, err)
		}
		args = append(args, "-drive", drive+p)
	}
	for _, image := range c.Images {
		args = append(args, "-drive", "snapshot=on,"+drive+image)
	}
	return args, nil
}

// machine is a running QEMU, shared by the readers of its two ports.
type machine struct {
	nonce string
	start time.Time

	mu      sync.Mutex // guards log
	log     io.Writer
	logFail error

	// Each of these belongs to one reader until both have ended.
	output  io.Writer
	trouble trouble
	ended   bool
	status  int

	up     chan struct{} // closed by the console's reader once the first program runs
	upOnce sync.Once
}

// run starts QEMU, and returns once it has ended and both ports are drained. timeout is
// counted from the first program.
func (m *machine) run(ctx context.Context, timeout time.Duration, qemu string, args []string) (*Result, error) {
	console, consoleEnd, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer console.Close()
	program, programEnd, err := socketPair()
	if err != nil {
		consoleEnd.Close()
		return nil, err
	}
	defer program.Close()

	var msg bytes.Buffer
	cmd := exec.Command(qemu, args...)
	cmd.Stdout, cmd.Stderr = &msg, &msg
	cmd.ExtraFiles = []*os.File{consoleEnd, programEnd}
	// If the test is killed, its machine must not live on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}

	m.start = time.Now()
	done, err := start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}

	var readers sync.WaitGroup
	readers.Add(2)
	go func() { defer readers.Done(); m.lines(console, "kernel", m.trouble.check) }()
	go func() { defer readers.Done(); m.lines(program, "", m.programLine) }()

	var errs []error
	if err := m.wait(ctx, timeout, cmd, done); err != nil {
		errs = append(errs, fmt.Errorf("run QEMU: %w\n%s", err, msg.String()))
	}
	readers.Wait()
	m.trouble.flush()
	if len(m.trouble.lines) > 0 {
		errs = append(errs, fmt.Errorf("%w:\n\t%s", ErrKernel, strings.Join(m.trouble.lines, "\n\t")))
	}
	if !m.ended {
		errs = append(errs, ErrNoEnd)
	}
	return &Result{Status: m.status, Elapsed: time.Since(m.start), Known: m.trouble.found}, errors.Join(append(errs, m.logFail)...)
}

// start starts a process, closes our copies of its ExtraFiles, and returns where its
// end is sent. The death signal is tied to the thread that starts the process, which
// therefore waits for it.
func start(cmd *exec.Cmd) (done chan error, err error) {
	started, done := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		for _, f := range cmd.ExtraFiles {
			f.Close()
		}
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	return done, <-started
}

// wait returns once QEMU has ended, by itself or killed at a limit.
func (m *machine) wait(ctx context.Context, timeout time.Duration, cmd *exec.Cmd, done <-chan error) error {
	limit := time.NewTimer(bootLimit)
	defer limit.Stop()
	reached, up := ErrNoBoot, m.up
	for {
		select {
		case err := <-done:
			return err
		case <-up:
			limit.Reset(timeout)
			reached, up = ErrTimeout, nil
			continue
		case <-limit.C:
		case <-ctx.Done():
			reached = ctx.Err()
			if errors.Is(reached, context.DeadlineExceeded) {
				reached = ErrTimeout
			}
		}
		after := time.Since(m.start).Round(time.Second)
		err := cmd.Process.Kill()
		<-done
		if errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
		return errors.Join(fmt.Errorf("%w, after %v", reached, after), err)
	}
}

// socketPair returns our end of a stream, and the other one for QEMU.
func socketPair() (here, there *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "vm"), os.NewFile(uintptr(fds[1]), "qemu"), nil
}

// lines passes every line of a port to the log and to handle, until it ends.
func (m *machine) lines(r io.Reader, who string, handle func(line string)) {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			line = strings.TrimRight(line, "\r\n")
			m.mu.Lock()
			if m.log != nil {
				_, e := fmt.Fprintf(m.log, "%8.3f %6s| %s\n", time.Since(m.start).Seconds(), who, line)
				m.logFail = errors.Join(m.logFail, e)
			}
			m.mu.Unlock()
			handle(line)
		}
		if err != nil {
			// The end, or ECONNRESET when QEMU was killed, which kill reports.
			return
		}
	}
}

// programLine handles a line of the program's port.
func (m *machine) programLine(line string) {
	if line == proto.FirstLine(m.nonce) {
		m.upOnce.Do(func() { close(m.up) })
		return
	}
	if status, ok := proto.ParseLastLine(line, m.nonce); ok {
		m.ended, m.status = true, status
		return
	}
	// The machine goes on even if the caller's writer fails.
	_, _ = io.WriteString(m.output, line+"\n")
}

// BuildProgram builds a main package for the guest, without cgo, and writes it
// to out, an absolute path. pkg is its folder in the repository, such as
// "./cmd/scoutfs-notify" or "./tests/x".
func BuildProgram(ctx context.Context, pkg, out string) error {
	return goBuild(ctx, "amd64", pkg, out, "build")
}

// BuildProgram32 is [BuildProgram] for a program that runs with 32 bits.
func BuildProgram32(ctx context.Context, pkg, out string) error {
	return goBuild(ctx, "386", pkg, out, "build")
}

// goBuild runs a go command, static for the guest, on a package named by its folder
// in the repository.
func goBuild(ctx context.Context, arch, pkg, out string, command ...string) error {
	dir, err := repo.Root()
	if err != nil {
		return err
	}
	c := run.Command{
		Dir:  filepath.Join(dir, pkg), // in whichever module that is
		Env:  []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch},
		Argv: slices.Concat([]string{"go"}, command, []string{"-o", out, "."}),
	}
	_, err = c.Output(ctx)
	return err
}
