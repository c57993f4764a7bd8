// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"context"
	"embed"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fakeKernels makes kernels whose headers compile any module in no time, into one that
// says what ScoutFS's says: what is tried with them is what rpm, dkms and the scriptlets
// do. It puts the files of fake/ where its setup.sh wants them.
func fakeKernels(m *machine) {
	m.t.Helper()
	script := "mkdir -p /opt/kernels\n"
	for _, name := range []string{"add.sh", "module.sh", "stock.spec", "setup.sh"} {
		text, err := fake.ReadFile("fake/" + name)
		if err != nil {
			m.t.Fatal(err)
		}
		script += "cat > /opt/kernels/" + strings.TrimSuffix(name, ".sh") + " <<'END'\n" + string(text) + "END\n"
	}
	m.sh(script + "sh /opt/kernels/setup")
}

//go:embed fake
var fake embed.FS

// stock is the stand-in for stock ScoutFS's package.
const stock = "kmod-scoutfs"

// randomRun is a machine in which a random sequence of steps goes on.
type randomRun struct {
	*machine
	rand *rand.Rand
	log  []string // the steps so far
	cuts bool     // with losses of power, which do not repeat
}

// kernelState is what a kernel has.
type kernelState struct {
	headers bool   // that compile
	loads   string // git_describe of the module that it would load; empty: none
}

// state is what the machine has.
type state struct {
	kernels  map[string]kernelState
	packages []string // name-version-release
}

// wants returns the git_describe of the installed package's module, empty if there is
// not exactly one package.
func (s state) wants() string {
	if len(s.packages) != 1 || strings.HasPrefix(s.packages[0], stock) {
		return ""
	}
	parts := strings.Split(s.packages[0], "-")
	return fmt.Sprintf("v%s-notify-%s", parts[len(parts)-2], parts[len(parts)-1])
}

func (r *randomRun) state() state {
	r.t.Helper()
	out := r.sh(`rpm -qa --qf 'package %{NAME}-%{VERSION}-%{RELEASE}\n' 'scoutfs-notify-kmod*' kmod-scoutfs
for dir in /lib/modules/*; do
	[ -d $dir/kernel ] || continue
	headers=no
	[ ! -e $dir/build/Makefile ] || [ -e $dir/build/broken ] || headers=yes
	echo kernel ${dir##*/} $headers $(modinfo -k ${dir##*/} -F git_describe scoutfs 2>/dev/null)
done`)
	s := state{kernels: map[string]kernelState{}}
	for _, line := range lines(out) {
		f := append(strings.Fields(line), "", "")
		switch f[0] {
		case "package":
			s.packages = append(s.packages, f[1])
		case "kernel":
			s.kernels[f[1]] = kernelState{headers: f[2] == "yes", loads: f[3]}
		default:
			r.t.Fatalf("unexpected: %s", line)
		}
	}
	return s
}

// failf fails the test with the steps that led here.
func (r *randomRun) failf(format string, args ...any) {
	r.t.Helper()
	tail := r.log[max(0, len(r.log)-12):]
	r.t.Fatalf("%s\nafter these steps, the last one with its output:\n%s", fmt.Sprintf(format, args...), strings.Join(tail, "\n"))
}

// step runs a script and logs it with its output. It returns the output and whether it
// said that something is wrong.
func (r *randomRun) step(what, script string) (out string, said bool) {
	r.t.Helper()
	out, err := r.try("bash", "-uc", script)
	if n := len(r.log); n > 0 {
		r.log[n-1], _, _ = strings.Cut(r.log[n-1], "\n")
	}
	r.log = append(r.log, what+"\n"+out)
	return out, err != nil || strings.Contains(out, "scriptlet failed") || strings.Contains(out, "Error in ")
}

// orphans lists what is there of packages that are not installed. After a transaction
// that failed, second names of modules stay until the next one.
func (r *randomRun) orphans(s state, failed bool) []string {
	r.t.Helper()
	want := s.wants()
	version := strings.NewReplacer("v", "", "-notify-", ".").Replace(want)
	var found []string
	// The kernels that keep a module.
	former := map[string]bool{}
	for _, dir := range lines(r.sh("ls -d /lib/modules/*/extra/scoutfs-notify-former 2>/dev/null || :")) {
		former[strings.TrimSuffix(dir, "/extra/scoutfs-notify-former")] = want != ""
	}
	for _, line := range lines(r.sh(`ls -d /usr/src/scoutfs-notify-* /var/lib/dkms/scoutfs-notify/[0-9]* 2>/dev/null || :
find /var/lib/dkms -name 'kernel-*' -printf '%p %l\n'
find /lib/modules/ -name '*scoutfs*' ! -type d -exec sh -c 'echo $0 $(modinfo -F git_describe $0 2>/dev/null)' {} \;`)) {
		path, what, _ := strings.Cut(line, " ")
		dir, base := filepath.Dir(path), filepath.Base(path)
		switch {
		case strings.HasSuffix(dir, "/extra/scoutfs"), strings.HasSuffix(dir, "/weak-updates"): // stock's
		case strings.HasPrefix(base, "scoutfs-notify-saved") && (failed || former[dir]):
		case want == "":
			found = append(found, line)
		case strings.HasSuffix(dir, "/scoutfs-notify-former"):
		case base == "scoutfs.ko" && what == want:
		case base == version, base == "scoutfs-notify-"+version, strings.HasPrefix(what, version+"/"):
		default:
			found = append(found, line)
		}
	}
	return found
}

// bootScript does what dkms.service does when a kernel boots, with what packages add to it.
func bootScript(kernel string) string {
	return fmt.Sprintf(`for pre in $(sed -n 's/^ExecStartPre=-\(.*\) %%v$/\1/p' /usr/lib/systemd/system/dkms.service.d/*.conf 2>/dev/null); do
	$pre %[1]s
done
dkms autoinstall -k %[1]s
`, kernel)
}

// boot does what DKMS does when a kernel boots.
func (r *randomRun) boot(kernel string) {
	r.t.Helper()
	r.step("boot "+kernel, bootScript(kernel))
}

// tool installs packages: rpm, or now and then dnf, which takes longer.
func (r *randomRun) tool(verb string, files ...string) string {
	if r.rand.IntN(4) > 0 {
		if verb == "erase" {
			return "rpm -e --nodeps " + strings.Join(files, " ")
		}
		return "rpm -U --nodeps --oldpackage --replacepkgs " + strings.Join(files, " ")
	}
	if verb == "erase" {
		return "dnf -y remove " + strings.Join(files, " ")
	}
	return "dnf -y --nogpgcheck --releasever=9 --repofrompath=others,file://" + workDir + "/others --allowerasing install " + strings.Join(files, " ")
}

func (r *randomRun) file(kmod string, release int) string {
	return fmt.Sprintf("%s/%s-%s-%d.noarch.rpm", repoOf(release), kmod, strings.TrimPrefix(kmod, "scoutfs-notify-kmod-v"), release)
}

// swap returns a command that replaces the installed packages with another. rpm cannot
// in one command, dnf can.
func (r *randomRun) swap(s state, file string) string {
	for _, p := range s.packages {
		if !strings.HasPrefix(filepath.Base(file), p) && strings.Split(filepath.Base(file), "-9")[0] != strings.Split(p, "-9")[0] {
			return "dnf -y --nogpgcheck --releasever=9 --repofrompath=others,file://" + workDir + "/others --allowerasing install " + file
		}
	}
	return r.tool("install", file)
}

// disturbances are what can happen to a transaction, as scripts around it. The disk of a
// folder is full: it is replaced with a small one for the transaction.
func full(dir string) string {
	return `dir=` + dir + `
size=$(du -sk $dir | cut -f1)
mkdir -p /mnt/full /mnt/was
mount --bind $dir /mnt/was
mount -t tmpfs -o size=$((size + size / 8 + 400))k full /mnt/full
cp -a $dir/. /mnt/full
dd if=/dev/zero of=/mnt/full/filler bs=4k 2>/dev/null
mount --move /mnt/full $dir
%s
rc=$?
rm $dir/filler
mount --move $dir /mnt/full
find /mnt/was -mindepth 1 -delete
cp -a /mnt/full/. /mnt/was
exit $rc
`
}

// transaction makes a random change to packages.
func (r *randomRun) transaction(s state) (what, command string, removal bool) {
	kmod := []string{kmod91, kmod92}[r.rand.IntN(2)]
	file := r.file(kmod, 1+r.rand.IntN(2))
	switch n := r.rand.IntN(10); {
	case n < 2 && len(s.packages) > 0:
		command = r.tool("erase", s.packages...)
		return "remove: " + command, command, true
	case n < 4 && len(s.packages) > 0 && s.wants() != "":
		command = r.swap(s, "/opt/stock/noarch/kmod-scoutfs-9-1.noarch.rpm")
		return "to stock: " + command, command, false
	default:
		command = r.swap(s, file)
		return "install: " + command, command, false
	}
}

// kernelChange makes a random change to kernels.
func (r *randomRun) kernelChange(s state) (what, script string, removes []string) {
	names := slices.Sorted(maps.Keys(s.kernels))
	k := names[r.rand.IntN(len(names))]
	const third = "6.1.3-1.el9.x86_64"
	switch n := r.rand.IntN(6); {
	case n < 2 && len(names) < 3:
		return "add kernel", fmt.Sprintf("/opt/kernels/add %[1]s\ndkms autoinstall -k %[1]s", third), nil
	case n < 3 && slices.Contains(names, third):
		return "remove kernel", fmt.Sprintf("%s %[2]s; rm -rf /lib/modules/%[2]s/kernel /lib/modules/%[2]s/modules.* /lib/modules/%[2]s/build /usr/src/kernels/%[2]s; rmdir -p /lib/modules/%[2]s; :",
			kernelHook, third), []string{third}
	case n < 4:
		return "change headers of " + k, fmt.Sprintf(`cd /lib/modules/%s; if [ -e build ]; then mv build nobuild; else mv nobuild build; fi`, k), nil
	case n < 5:
		return "break or mend headers of " + k, fmt.Sprintf(`cd /usr/src/kernels/%s; if [ -e broken ]; then rm broken; else touch broken; fi`, k), nil
	default:
		return "boot " + k, bootScript(k) + ":", nil
	}
}

// random makes one random step and checks what holds after any.
func (r *randomRun) random() {
	r.t.Helper()
	before := r.state()
	if r.rand.IntN(3) == 0 {
		what, script, removes := r.kernelChange(before)
		r.step(what, script)
		r.check(before, r.state(), true, removes, false)
		return
	}
	what, command, removal := r.transaction(before)
	switch r.rand.IntN(8) {
	case 0:
		dir := []string{"/tmp", "/var/lib/dkms", "/usr/src", "/lib/modules"}[r.rand.IntN(4)]
		_, said := r.step("full "+dir+": "+what, fmt.Sprintf(full(dir), command))
		r.check(before, r.state(), said, nil, removal)
	case 1:
		after := time.Duration(r.rand.IntN(3000)) * time.Millisecond
		if r.cuts {
			r.cut(before, what, command, after, removal)
			return
		}
		fallthrough
	default:
		_, said := r.step(what, command)
		r.check(before, r.state(), said, nil, removal)
	}
}

// check checks what holds after every step. said: the step's exit code or a scriptlet
// told that something is wrong. removes: kernels that are gone.
func (r *randomRun) check(before, now state, said bool, gone []string, removal bool) {
	r.t.Helper()
	if len(r.log) > 0 {
		for k := range now.kernels {
			// With a full disk the module is there, but not its index.
			if advice := "make room in /lib/modules, then: depmod " + k; strings.Contains(r.log[len(r.log)-1], advice) {
				r.sh("depmod " + k)
				now = r.state()
			}
		}
	}
	want := now.wants()
	// The stock package has its own rules, and rpm removes what it replaces even if it
	// cannot install it.
	mayLose := removal || said && want == "" || strings.HasPrefix(strings.Join(now.packages, ""), stock)
	for k, was := range before.kernels {
		if was.loads != "" && now.kernels[k].loads == "" && !slices.Contains(gone, k) && !mayLose {
			r.failf("kernel %s had the module %s and has none", k, was.loads)
		}
	}
	if found := r.orphans(now, said); len(found) > 0 {
		r.failf("left of packages that are not installed (%v):\n%s", now.packages, strings.Join(found, "\n"))
	}
	if want == "" {
		return
	}
	for k, has := range now.kernels {
		if !has.headers || has.loads == want {
			continue
		}
		if !said {
			r.failf("kernel %s, with headers, loads %q instead of %q, and nothing was said", k, has.loads, want)
		}
		r.boot(k)
		if got := r.state().kernels[k].loads; got != want {
			r.failf("dkms does not build for kernel %s any more: it loads %q instead of %q", k, got, want)
		}
	}
}

// cut ends a transaction half way, as a loss of power does, and checks that the next
// boot heals what it left, then that it can all be removed.
func (r *randomRun) cut(before state, what, command string, after time.Duration, removal bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), after)
	defer cancel()
	out, _ := r.tryFor(ctx, nil, "sh", "-uc", command)
	if ctx.Err() == nil {
		r.log = append(r.log, "not "+what)
		r.check(before, r.state(), true, nil, removal)
		return
	}
	r.step(fmt.Sprintf("cut after %v: %s", after, what), "rm -f /var/lib/rpm/.rpm.lock /var/lib/dnf/*.pid; echo \"$0\"")
	r.log = append(r.log, out)
	now := r.state()
	for k, has := range now.kernels {
		if has.headers && has.loads == "" && before.kernels[k].loads != "" && !removal && len(now.packages) > 0 && !strings.HasPrefix(now.packages[0], stock) {
			r.boot(k)
			if r.state().kernels[k].loads == "" {
				r.failf("the next boot of kernel %s does not bring back its module", k)
			}
		}
	}
	for _, p := range slices.Backward(now.packages) {
		r.step("remove "+p, "rpm -e --nodeps --allmatches "+p)
	}
	// rpm knows nothing of a package that it was still unpacking: its files, and what its
	// pre made, stay until it is installed. Nothing loads or builds them.
	r.sh(`for dir in /usr/src/scoutfs-notify-*; do rpm -qf $dir >/dev/null 2>&1 || rm -rf $dir; done
rm -f /lib/modules/*/scoutfs-notify-saved*`)
	r.check(now, r.state(), true, nil, true)
}

// TestKmodRandom does random steps to the packages and kernels of a machine, STEPS of
// them from the seed SEED, and checks after each that no kernel lost its module without
// a word, that nothing is left of packages that are gone, and that dkms still builds.
// Without STEPS it does the same few each time, without losses of power.
func TestKmodRandom(t *testing.T) {
	t.Parallel()
	steps, seed, cuts := 25, uint64(7), false
	var err error
	if v := os.Getenv("STEPS"); v != "" {
		if steps, err = strconv.Atoi(v); err != nil {
			t.Fatalf("STEPS=%s: %v", v, err)
		}
		seed, cuts = uint64(time.Now().UnixNano()), true
	}
	if v := os.Getenv("SEED"); v != "" {
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("SEED=%s: %v", v, err)
		}
	}
	eachDkms(t, func(t *testing.T, m *machine) {
		t.Logf("repeat with SEED=%d STEPS=%d", seed, steps)
		fakeMachine(m)
		r := &randomRun{machine: m, rand: rand.New(rand.NewPCG(seed, 0)), cuts: cuts}
		for i := range steps {
			r.random()
			if (i+1)%50 == 0 {
				t.Logf("%d of %d steps", i+1, steps)
			}
		}
		r.removeAll()
	})
}
