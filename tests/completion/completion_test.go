// SPDX-License-Identifier: GPL-2.0-only

// Package completion tries the completion of the commands in real shells, in a terminal.
package completion

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// patience is how long something may take on a busy host.
const patience = 30 * time.Second

// prompt is what the shells print when they wait for a line.
const prompt = "READY> "

// all is a key that inserts all that fits.
const all = "\x1b*"

// shells are those that there is completion for. setup has %s for the folder of it.
var shells = []struct {
	name, setup string
	argv        []string
}{
	{"bash", `. %s/scoutfs-notify.bash; bind 'set enable-bracketed-paste off'; PS1='READY''> '`, []string{"--norc", "--noprofile", "-i"}},
	{"zsh", `fpath=(%s $fpath); autoload -U compinit; compinit -D -u; zle -C all complete-word _generic;` +
		` zstyle ':completion:all:*' insert yes; zstyle ':completion:all::::' completer _all_matches _complete; bindkey '^[*' all; PS1='READY''> '`, []string{"-f", "-i"}},
}

// programs have completion.
var programs = []string{"scoutfs-notify", "scoutfs-notify-index"}

// wrapper is run in place of a program. It lets it answer the shell, with mounts of the
// test's, and otherwise tells the test what it was run with.
const wrapper = `#!/bin/sh
if [ "$1" = complete ]; then
	mount --bind "$TRY/mountinfo" "/proc/$$/mountinfo"
	exec "$TRY/programs/${0##*/}" "$@"
fi
printf '%s\0' "${0##*/}" "$@" >"$TRY/ran"
`

var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	status := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(status)
}

// build returns the folder of the programs.
func build(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		built.dir, built.err = os.MkdirTemp("", "scoutfs-notify-completion-")
		for _, name := range programs {
			if built.err == nil {
				built.err = vm.BuildProgram(t.Context(), "./cmd/"+name, filepath.Join(built.dir, name))
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// shell is one that runs in a terminal, in a folder of its own.
type shell struct {
	t   *testing.T
	dir string
	pty *os.File
	ran *os.File // what the wrapper tells

	mu      sync.Mutex
	written []byte
	more    chan struct{} // something was written
}

// start starts a shell that sees some mounts of ScoutFS, and has some files in its folder.
func start(t *testing.T, name string, setup string, argv []string, mounts, files []string) *shell {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can show a shell mounts that there are not")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("skipped: there is no %[1]s; on Debian: apt-get install %[1]s", name)
	}
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, dir: t.TempDir(), more: make(chan struct{}, 1)}
	s.populate(mounts, files)
	if err := errors.Join(syscall.Mkfifo(s.at("ran"), 0o600), os.Symlink(build(t), s.at("programs"))); err != nil {
		t.Fatal(err)
	}
	if s.ran, err = os.OpenFile(s.at("ran"), os.O_RDWR|syscall.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, argv...)
	cmd.Dir = s.at("files")
	cmd.Env = []string{"TERM=xterm", "LANG=C.UTF-8", "HOME=" + s.dir, "INPUTRC=/dev/null", "TRY=" + s.dir, "PATH=" + s.at("bin") + ":" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Unshareflags: syscall.CLONE_NEWNS}
	if s.pty, err = pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 2000}); err != nil {
		t.Fatal(err)
	}
	go s.read()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		s.pty.Close()
		s.ran.Close()
	})
	s.typed(fmt.Sprintf(setup, filepath.Join(root, "packaging", "completion")) + "\r")
	s.prompted()
	return s
}

func (s *shell) at(name string) string { return filepath.Join(s.dir, name) }

// populate makes what is in the shell's folder.
func (s *shell) populate(mounts, files []string) {
	s.t.Helper()
	info := "1 0 0:1 / / rw - ext4 /dev/root rw\n"
	for i, m := range mounts {
		// as the kernel writes it
		m = regexp.MustCompile(`[ \t\n\\#]`).ReplaceAllStringFunc(s.at(m), func(c string) string { return fmt.Sprintf(`\%03o`, c[0]) })
		info += fmt.Sprintf("%[1]d 1 0:%[1]d / %[2]s rw - scoutfs /dev/data rw\n", i+2, m)
	}
	err := os.WriteFile(s.at("mountinfo"), []byte(info), 0o600)
	for _, dir := range append([]string{"bin", "files"}, mounts...) {
		err = errors.Join(err, os.MkdirAll(s.at(dir), 0o755))
	}
	for _, name := range files {
		path := filepath.Join(s.at("files"), name)
		if strings.HasSuffix(name, "/") {
			err = errors.Join(err, os.Mkdir(path, 0o755))
		} else {
			err = errors.Join(err, os.WriteFile(path, nil, 0o644))
		}
	}
	for _, name := range programs {
		err = errors.Join(err, os.WriteFile(filepath.Join(s.at("bin"), name), []byte(wrapper), 0o755))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// read keeps what the shell writes.
func (s *shell) read() {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.pty.Read(buf)
		s.mu.Lock()
		s.written = append(s.written, buf[:n]...)
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (s *shell) typed(keys string) {
	s.t.Helper()
	s.mu.Lock()
	s.written = nil
	s.mu.Unlock()
	if _, err := s.pty.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// prompted waits until the shell waits for a line.
func (s *shell) prompted() {
	s.t.Helper()
	late := time.After(patience)
	for {
		s.mu.Lock()
		done := bytes.Contains(s.written, []byte(prompt))
		written := s.written
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.more:
		case <-late:
			s.t.Fatalf("the shell does not wait for a line; it has written %q", written)
		}
	}
}

// runs types keys and return, and returns what the shell runs then.
func (s *shell) runs(keys string) []string {
	s.t.Helper()
	s.typed(keys + "\r")
	s.ran.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096) // what a pipe takes at once
	n, err := s.ran.Read(buf)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.t.Fatalf("%q runs no command: %v; the shell has written %q", keys, err, s.written)
	}
	s.prompted()
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
}

// Every byte that can be in a name, of a mount point and of a file, gets to the program as it
// is.
func TestBytes(t *testing.T) {
	t.Parallel()
	name := func(kind string, c int) string { return fmt.Sprintf("%s%03d-%send", kind, c, string([]byte{byte(c)})) }
	var mounts, files []string
	for c := 1; c < 256; c++ {
		if c != '/' {
			mounts, files = append(mounts, name("m", c)), append(files, name("f", c))
		}
	}
	for _, sh := range shells {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sh.name, sh.setup, sh.argv, mounts, files)
			for i := range mounts {
				typed := fmt.Sprintf("scoutfs-notify stat %s\t %s\t", s.at(mounts[i][:5]), files[i][:5])
				got := s.runs(typed)
				if len(got) > 2 {
					got[2] = strings.TrimSuffix(got[2], "/")
				}
				if want := []string{"scoutfs-notify", "stat", s.at(mounts[i]), files[i]}; !slices.Equal(got, want) {
					t.Errorf("%q runs %q, want %q", typed, got, want)
				}
			}
		})
	}
}

// help returns the words of a program's -help that an expression finds, sorted.
func help(t *testing.T, re, program string, args ...string) []string {
	t.Helper()
	out, err := exec.Command(filepath.Join(build(t), program), append(args, "-help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, m := range regexp.MustCompile(re).FindAllStringSubmatch(string(out), -1) {
		words = append(words, m[1])
	}
	return slices.Sorted(slices.Values(words))
}

// All commands and all of their flags are completed, and nothing else.
func TestFlags(t *testing.T) {
	t.Parallel()
	for _, sh := range shells {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sh.name, sh.setup, sh.argv, nil, nil)
			check := func(before, typed string, want []string) {
				t.Helper()
				got := s.runs(before + " " + typed + all)[len(strings.Fields(before)):]
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("%q after %q completes to %q, want %q", typed, before, got, want)
				}
			}
			for _, program := range programs {
				commands := help(t, `(?m)^  ([a-z]+) `, program)
				if len(commands) < 5 {
					t.Fatalf("%s -help lists the commands %q", program, commands)
				}
				check(program, "", commands)
				check(program+" help", "", commands)
				for _, command := range commands {
					if command == "version" || command == "help" {
						continue
					}
					asked := program
					if program == "scoutfs-notify" && slices.Contains([]string{"cold", "hot", "last"}, command) {
						asked = "scoutfs-notify-index"
					}
					check(program+" "+command, "-", help(t, `(?m)^  (-[0-9a-z-]+)`, asked, command))
				}
			}
		})
	}
}

// What each kind of word becomes.
func TestWords(t *testing.T) {
	t.Parallel()
	mounts := []string{"mnt/one", "mnt/two words", "mnt/it's \"$(odd)`"}
	files := []string{"reads.rec", "stores/", "stores.txt", "tail/"}
	for _, sh := range shells {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sh.name, sh.setup, sh.argv, mounts, files)
			mnt := s.at("mnt")
			for _, tt := range []struct{ typed, want string }{
				{"scoutfs-notify ta\t", "tail"},
				{"scoutfs-notify help ta\t", "help tail"},
				{"scoutfs-notify top -by u\t", "top -by user"},
				{"scoutfs-notify top -by=u\t", "top -by=user"},
				{"scoutfs-notify top --by=pr\t", "top --by=process"},
				{"scoutfs-notify top --tot\t", "top --total"},
				{"scoutfs-notify top -by user -so\t op\t", "top -by user -sort opens"},
				{"scoutfs-notify picture h\t", "picture heatmap"},
				{"scoutfs-notify picture heatmap rea\t", "picture heatmap reads.rec"},
				{"scoutfs-notify tail -f rea\t", "tail -f reads.rec"},
				{"scoutfs-notify tail -count 3 rea\t", "tail -count 3 reads.rec"},
				{"scoutfs-notify tail -- rea\t", "tail -- reads.rec"},
				{"scoutfs-notify tail -user roo\t", "tail -user root"},
				{"scoutfs-notify record rea\t" + mnt + "/o\t", "record reads.rec " + mnt + "/one"},
				{"scoutfs-notify cold -by d\t", "cold -by directory"},
				{"scoutfs-notify cold -from st\t", "cold -from stores"},
				{"scoutfs-notify-index follow -exclude uid=993 " + mnt + "/o\t", "follow -exclude uid=993 " + mnt + "/one"},
				{"scoutfs-notify stat " + mnt + "/tw\t", "stat " + mnt + "/two words"},
				{"scoutfs-notify stat " + mnt + `/two\ w` + "\t", "stat " + mnt + "/two words"},
				{"scoutfs-notify stat '" + mnt + "/two w\t", "stat " + mnt + "/two words"},
				{`scoutfs-notify stat "` + mnt + "/two w\t", "stat " + mnt + "/two words"},
				{"scoutfs-notify stat " + mnt + "/i\t", "stat " + mnt + "/it's \"$(odd)`"},
				{"scoutfs-notify nothing \t$(false)x", "nothing x"},
			} {
				got := s.runs(tt.typed)
				for i, g := range got {
					got[i] = strings.TrimSuffix(g, "/") // of a folder
				}
				if g := strings.Join(got[1:], " "); g != tt.want {
					t.Errorf("%q runs %q, want %q", tt.typed, g, tt.want)
				}
			}
		})
	}
}
