// SPDX-License-Identifier: GPL-2.0-only

package boot

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// sanitizer returns which of the kernels of tests/sanitize it is, or "".
func sanitizer(k *vm.KernelTree) string {
	for _, name := range []string{"kasan", "kcsan"} {
		if strings.HasSuffix(k.Version, "-"+name) {
			return name
		}
	}
	return ""
}

// upstreamFault is a fault of ScoutFS's own that sanitizers find, without this project's
// patches too. Its report is in docs/upstream.
type upstreamFault struct {
	vm.Known
	report string // file in docs/upstream
	guest  string // the test of tests/guest that provokes it
	// said is what the guest prints then, for a fault without a report of the kernel's.
	said     string
	releases *regexp.Regexp
}

var upstreamFaults = []upstreamFault{
	{
		// dentry_parent_ino puts a dentry, which may sleep, before d_revalidate looks at
		// LOOKUP_RCU.
		Known: vm.Known{
			Name: "d_revalidate sleeps under RCU",
			Head: regexp.MustCompile(`sleeping function called from invalid context|suspicious RCU usage`),
			Has:  regexp.MustCompile(`scoutfs_d_revalidate\+0x`),
		},
		report: "d-revalidate-rcu.md", guest: "TestUpstreamRevalidate", releases: regexp.MustCompile(`.`),
	},
	{
		// scoutfs_setup_sysfs frees its structure when it fails and leaves the pointer to
		// it, which put_super follows.
		Known: vm.Known{
			Name: "mount that fails uses what setup_sysfs freed",
			Head: regexp.MustCompile(`KASAN: use-after-free`),
			Has:  regexp.MustCompile(`scoutfs_destroy_sysfs\+0x`),
		},
		report: "sysfs-use-after-free.md", guest: "TestUpstreamSysfs", releases: regexp.MustCompile(`.`),
	},
	{
		Known:  vm.Known{Name: "mount hangs", Head: regexp.MustCompile(`INFO: task mount.* blocked for more than`)},
		report: "mount-hang.md", guest: "TestUpstreamMount", said: guest.MountHangs, releases: regexp.MustCompile(`^v1\.(28|29|30)$`),
	},
}

// knownReports returns what a kernel may report that is not about this project's code.
func knownReports(k *vm.KernelTree) []vm.Known {
	switch sanitizer(k) {
	case "kcsan":
		// The kernel itself has many such races, most of them meant, and so has ScoutFS.
		return []vm.Known{{
			// An interrupt counts up and down what the task that it interrupts counts, RCU
			// looks at that, and who waits for a mutex looks at its owner without a lock.
			// capable() sets a bit of the task's flags, of which RCU's interrupt reads another.
			Name: "inside of the kernel",
			Head: regexp.MustCompile(`BUG: KCSAN: data-race in (__rcu_read_(un)?lock / \w*rcu_\w+|mutex_spin_on_owner|capable / rcu_core)\b`),
		}, {
			Name: "data race of others",
			Head: regexp.MustCompile(`BUG: KCSAN: `),
			Not:  regexp.MustCompile(`\b_*(scoutfs_)?(ioc_read_)?notify(_\w+)?(\+0x|\.| \[scoutfs\])`),
		}}
	case "kasan":
		var known []vm.Known
		for _, u := range upstreamFaults {
			if u.said == "" {
				known = append(known, u.Known)
			}
		}
		return known
	}
	return nil
}

// TestUpstream provokes the faults that are told apart, with upstream's own module. One
// that is gone must be taken off the list.
func TestUpstream(t *testing.T) {
	k := vm.TestKernel(t, vm.KernelNames()[0])
	if sanitizer(k) != "kasan" {
		t.Skip("skipped: make sanitize runs it, on a kernel that can see the faults")
	}
	all, err := repo.Series()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		for _, u := range upstreamFaults {
			if !u.releases.MatchString(s.Version) {
				continue
			}
			t.Run(s.Version+"/"+u.guest, func(t *testing.T) {
				_, unpatched := vm.TestScoutFS(t, k, s)
				c := machine(t, k, unpatched.Module, unpatched.Module)
				onScoutFS(&c, unpatched, s.Version)
				c.Known = []vm.Known{u.Known}
				c.Timeout = 30 * time.Minute
				var said strings.Builder
				c.Output = &said
				c.Files[vm.GuestTest] = vm.File{Source: vm.BuildTest(t, "./guest"), Mode: 0o755}
				c.Argv = []string{vm.GuestTest, "-test.v", "-test.run=^" + u.guest + "$"}
				// A signal's frame is a copy that can be made to fail, which kills the process.
				c.Env = append(c.Env, guest.EnvProvoke+"=1", "GODEBUG=asyncpreemptoff=1")
				res, err := vm.Boot(t.Context(), c)
				if res == nil {
					t.Fatal(err)
				}
				// The machine need not survive it.
				t.Logf("machine up for %.1f s: %v", res.Elapsed.Seconds(), err)
				if u.said != "" && strings.Contains(said.String(), u.said) || res.Known[u.Name] > 0 {
					return
				}
				t.Errorf("%q did not happen: if upstream has repaired it, take it off the list and delete docs/upstream/%s\n%s",
					u.Name, u.report, said.String())
			})
		}
	}
}
