// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The kernels of fakeKernels.
const fake1, fake2 = "6.1.1-1.el9.x86_64", "6.1.2-1.el9.x86_64"

// resultStep is a step of an admin and what has to be there after it.
type resultStep struct {
	do    string   // script
	says  []string // in its output
	not   string   // not in its output
	fails bool     // a scriptlet fails
	loads []string // what the kernels' modules say of themselves, in the order of kernels
}

// install and the other commands use the packages' files, as dnf is not what is tried.
func install(kmod string, release int) string {
	return "rpm -U --nodeps --oldpackage --replacepkgs " + (&randomRun{}).file(kmod, release)
}

const (
	installStock = "rpm -i --nodeps /opt/stock/noarch/kmod-scoutfs-9-1.noarch.rpm"
	toStock      = dnfSwap + "/opt/stock/noarch/kmod-scoutfs-9-1.noarch.rpm"
	dnfSwap      = "dnf -y --nogpgcheck --releasever=9 --repofrompath=others,file://" + workDir + "/others --allowerasing install "
	remove91     = "rpm -e --nodeps " + kmod91
	noHeaders    = "for dir in /lib/modules/*; do mv $dir/build $dir/nobuild; done; "
	headersBack  = "for dir in /lib/modules/*; do mv $dir/nobuild $dir/build; done; "
	autoinstall  = "dkms autoinstall -k " + fake1 + " && dkms autoinstall -k " + fake2
	none         = "(none)"
	// Debian's package has none.
	bootUnit = "printf '[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/dkms.service; "
)

// intoRoot installs into a root by the machine's dnf, after what is mounted there.
func intoRoot(mounts string) string {
	return "mkdir -p /mnt/root; mount --bind / /mnt/root; " + mounts +
		"mkdir -p /mnt/root" + workDir + "; " +
		strings.Replace(dnfSwap, "dnf ", "dnf --installroot=/mnt/root ", 1) + (&randomRun{}).file(kmod91, first)
}

// resultTests are what went wrong with packages that believe dkms.
var resultTests = []struct {
	name  string
	steps []resultStep
}{
	{"upgrade without headers", []resultStep{
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: "mv /lib/modules/" + fake1 + "/build /root; " + install(kmod91, second), fails: true,
			says:  []string{"ERROR: KERNEL " + fake1 + " KEEPS THE MODULE THAT IT HAD, v9.1-notify-1: v9.1-notify-2 was not built"},
			loads: []string{"v9.1-notify-1", "v9.1-notify-2"}},
		{do: install(kmod91, second), fails: true,
			says:  []string{"no headers for kernel " + fake1, "ERROR: KERNEL " + fake1 + " KEEPS THE MODULE THAT IT HAD, v9.1-notify-1"},
			loads: []string{"v9.1-notify-1", "v9.1-notify-2"}},
		{do: "mv /root/build /lib/modules/" + fake1 + "/; " + autoinstall, loads: []string{"v9.1-notify-2", "v9.1-notify-2"}},
	}},
	{"from stock without headers, then with them", []resultStep{
		{do: installStock, loads: []string{"v9.1", "v9.1"}},
		{do: noHeaders + dnfSwap + (&randomRun{}).file(kmod91, first), fails: true,
			says: []string{"Error in POSTTRANS scriptlet", "ERROR: KERNEL " + fake1 + " KEEPS THE MODULE THAT IT HAD, v9.1:",
				"ERROR: KERNEL " + fake2 + " KEEPS THE MODULE THAT IT HAD, v9.1:"},
			loads: []string{"v9.1", "v9.1"}},
		{do: headersBack + autoinstall, loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: install(kmod91, second), loads: []string{"v9.1-notify-2", "v9.1-notify-2"}},
	}},
	{"to stock and back", []resultStep{
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: toStock, not: "no ScoutFS module is left", loads: []string{"v9.1", "v9.1"}},
		{do: dnfSwap + (&randomRun{}).file(kmod91, second), loads: []string{"v9.1-notify-2", "v9.1-notify-2"}},
	}},
	{"the running kernel has none", []resultStep{
		{do: "/opt/kernels/add $(uname -r); rm /lib/modules/$(uname -r)/build; " + install(kmod91, first) + "; rm -r /lib/modules/$(uname -r)", fails: true,
			says: []string{", WHICH RUNS, HAS NO SCOUTFS MODULE", "no headers for kernel"}, loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
	{"says that DKMS builds at boot only if it does", []resultStep{
		{do: bootUnit + "systemctl disable dkms.service; mv /lib/modules/" + fake1 + "/build /root; " + install(kmod91, first),
			says: []string{"dkms autoinstall -k " + fake1}, not: "when that kernel boots", loads: []string{none, "v9.1-notify-1"}},
		{do: "systemctl enable dkms.service; " + install(kmod91, second), says: []string{"when that kernel boots"}, loads: []string{none, "v9.1-notify-2"}},
		{do: "mv /root/build /lib/modules/" + fake1 + "/; " + autoinstall, loads: []string{"v9.1-notify-2", "v9.1-notify-2"}},
	}},
	{"removal without a source", []resultStep{
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: "rm -r /usr/src/scoutfs-notify-*; " + remove91, says: []string{"no ScoutFS module is left for these kernels: " + fake1 + " " + fake2}, loads: []string{none, none}},
		{do: install(kmod92, first), loads: []string{"v9.2-notify-1", "v9.2-notify-1"}},
	}},
	{"upgrade without a source", []resultStep{
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: "rm -r /usr/src/scoutfs-notify-*; " + install(kmod91, second), loads: []string{"v9.1-notify-2", "v9.1-notify-2"}},
	}},
	{"removal with a full /tmp", []resultStep{
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: fmt.Sprintf(full("/tmp"), remove91), says: []string{"no ScoutFS module is left"}, loads: []string{none, none}},
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
	{"upgrade with a full /lib/modules", []resultStep{
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		// The new modules are larger.
		{do: "sed -i s/fill.50000/fill\\ 5000000/ /opt/kernels/module; " + "(" + fmt.Sprintf(full("/lib/modules"), install(kmod91, second)) + "); depmod " + fake1 + "; depmod " + fake2, fails: true,
			says: []string{"ERROR: KERNEL " + fake1, "ERROR: KERNEL " + fake2, "KEEPS THE MODULE THAT IT HAD, v9.1-notify-1"},
			not:  "built and installed", loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: install(kmod91, second), loads: []string{"v9.1-notify-2", "v9.1-notify-2"}},
	}},
	{"DKMS does not forget the module with the last kernel", []resultStep{
		{do: install(kmod91, first), loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
		{do: "for k in " + fake1 + " " + fake2 + "; do " + kernelHook + " $k; done; ! ls /lib/modules/*/extra/scoutfs.ko", loads: []string{none, none}},
		{do: autoinstall, loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
	{"another module comes first", []resultStep{
		// dkms takes away those that are in the kernel's folder.
		{do: "mkdir -p /opt/other /etc/depmod.d; /opt/kernels/module other " + fake1 + " > /opt/other/scoutfs.ko; " +
			"printf 'search external updates extra built-in\nexternal 6.1.1-.* /opt/other\n' > /etc/depmod.d/other.conf; " + install(kmod91, first), fails: true,
			says: []string{"ERROR: KERNEL " + fake1 + " DOES NOT FIND THE MODULE THAT WAS BUILT FOR IT: filename:       /opt/other/scoutfs.ko git_describe:   other",
				"Another module of that name comes first", "module built and installed for kernel " + fake2},
			loads: []string{"other", "v9.1-notify-1"}},
		{do: "rm -r /opt/other /etc/depmod.d/other.conf; depmod " + fake1, loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
	{"into a root, as kickstart does", []resultStep{
		{do: intoRoot("mount --bind /dev /mnt/root/dev; mount -t proc proc /mnt/root/proc; "),
			says: []string{"module built and installed for kernel " + fake1, "module built and installed for kernel " + fake2}, loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
	{"into a root without /proc and /dev", []resultStep{
		{do: intoRoot(""), says: []string{"module built and installed for kernel " + fake1, "module built and installed for kernel " + fake2},
			loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
	{"no kernels", []resultStep{
		{do: "mv /lib/modules/6* /root; " + install(kmod91, first) + "; mv /root/6* /lib/modules/", says: []string{"there is no kernel here"}, loads: []string{none, none}},
		{do: autoinstall, loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
	{"unsigned", []resultStep{
		{do: install(kmod91, first), says: []string{"not signed for these kernels, which with Secure Boot refuse it: " + fake1 + " " + fake2},
			loads: []string{"v9.1-notify-1", "v9.1-notify-1"}},
	}},
}

// TestKmodResult does what went wrong with packages that believe dkms.
func TestKmodResult(t *testing.T) {
	t.Parallel()
	eachDkms(t, func(t *testing.T, m *machine) {
		fakeMachine(m)
		for _, c := range resultTests {
			t.Run(c.name, func(t *testing.T) {
				r := &randomRun{machine: &machine{t: t, jail: m.jail}}
				for _, s := range c.steps {
					out, said := r.step(s.do, s.do)
					contains(t, out, s.says...)
					if s.not != "" && strings.Contains(out, s.not) {
						t.Errorf("it says %q", s.not)
					}
					if said != s.fails {
						t.Errorf("a scriptlet or the command failed: %v, not %v", said, s.fails)
					}
					now := r.state()
					for i, k := range []string{fake1, fake2} {
						if got := now.kernels[k].loads; got != strings.TrimSuffix(s.loads[i], none) {
							t.Errorf("kernel %s loads %q, not %q", k, got, s.loads[i])
						}
					}
					if t.Failed() {
						r.failf("it went wrong")
					}
				}
				r.removeAll()
			})
			if t.Failed() {
				return // the machine is not as it should be
			}
		}
	})
}

// fakeMachine prepares a machine with fakeKernels.
func fakeMachine(m *machine) {
	m.t.Helper()
	fakeKernels(m)
	m.sh("rpm -i --nodeps " + workDir + "/others/noarch/debian-provides*.rpm")
}

// removeAll removes the packages and checks that nothing is left of them.
func (r *randomRun) removeAll() {
	r.t.Helper()
	s := r.state()
	for _, p := range s.packages {
		r.step("remove "+p, "rpm -e --nodeps "+p)
	}
	r.check(s, r.state(), false, nil, true)
}

// An upgrade with three kernels makes a new initramfs at most twice: for the old
// module's removal and for the new one's installation.
func TestKmodInitramfs(t *testing.T) {
	t.Parallel()
	eachDkms(t, func(t *testing.T, m *machine) {
		if strings.Contains(m.sh("dkms --version"), "3.0.10") {
			t.Skip("dkms 3.0.10 has no post_transaction")
		}
		fakeMachine(m)
		m.sh(`/opt/kernels/add 6.1.3-1.el9.x86_64
echo 'post_transaction="echo run >> /root/initramfs"' > /etc/dkms/framework.conf.d/test.conf
` + install(kmod91, first) + "; rm /root/initramfs; " + install(kmod91, second))
		if runs := lines(m.sh("cat /root/initramfs")); len(runs) > 2 {
			t.Errorf("%d runs instead of 2", len(runs))
		}
	})
}

// TestKmodCut kills an upgrade and a swap from the stock package, with all that they
// started, CUTS times each, at another moment each time. The next boot heals it, and
// all can be removed.
func TestKmodCut(t *testing.T) {
	t.Parallel()
	cuts := 3
	if v := os.Getenv("CUTS"); v != "" {
		var err error
		if cuts, err = strconv.Atoi(v); err != nil {
			t.Fatalf("CUTS=%s: %v", v, err)
		}
	}
	eachDkms(t, func(t *testing.T, m *machine) {
		fakeMachine(m)
		r := &randomRun{machine: m}
		for _, before := range []string{install(kmod91, first), installStock} {
			command := install(kmod91, second)
			if before == installStock {
				command = dnfSwap + r.file(kmod91, second)
			}
			// How long it takes.
			r.step(before, before)
			start := time.Now()
			r.step(command, command)
			took := time.Since(start)
			r.removeAll()
			for i := range cuts {
				r.step(before, before)
				r.cut(r.state(), command, command, took*time.Duration(2*i+1)/time.Duration(2*cuts), false)
				r.removeAll()
				if (i+1)%20 == 0 {
					t.Logf("%d of %d cuts", i+1, cuts)
				}
			}
		}
	})
}
