// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// notifydDir is the folder of the daemon's packages in a machine.
const notifydDir = "/notifyd"

var notifydOnce struct {
	sync.Once
	dir string
}

// notifydPackages builds releases 1 and 2 of the daemon's packages on the host, which
// has Go, and returns their folder.
func notifydPackages(t *testing.T) string {
	t.Helper()
	packages(t)
	notifydOnce.Do(func() {
		dir := filepath.Join(runDir(t), "notifyd")
		for _, release := range []int{first, second} {
			buildNotifyd(t, release, filepath.Join(dir, strconv.Itoa(release)))
		}
		m := newMachine(t, bind{Source: dir, Target: notifydDir, Write: true})
		m.sh("for dir in " + notifydDir + "/*; do createrepo_c -q $dir; done")
		notifydOnce.dir = dir
	})
	if notifydOnce.dir == "" {
		t.Fatal("the daemon's packages were not built, see the first test")
	}
	return notifydOnce.dir
}

func buildNotifyd(t *testing.T, release int, out string, env ...string) {
	t.Helper()
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(buildOnce.dir, "build"), "notifyd")
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), "DIST_DIR="+out,
		fmt.Sprintf("PATCHES_DIR=%s/series%d", buildOnce.dir, release))
	cmd.Env = append(cmd.Env, env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build notifyd: %v\n%s", err, msg)
	}
}

func notifydMachine(t *testing.T) *machine {
	t.Helper()
	dir := notifydPackages(t)
	return newMachine(t, append(packages(t), bind{Source: dir, Target: notifydDir})...)
}

func dnfNotifyd(m *machine, release int, args ...string) string {
	m.t.Helper()
	return m.run(append([]string{"dnf", "-y", "--nogpgcheck", "--releasever=9",
		"--repofrompath=others,file://" + workDir + "/others",
		fmt.Sprintf("--repofrompath=notifyd%d,file://%s/%d", release, notifydDir, release)}, args...)...)
}

func TestNotifydReproducible(t *testing.T) {
	t.Parallel()
	dir := notifydPackages(t)
	again := t.TempDir()
	buildNotifyd(t, first, again, "TMPDIR="+t.TempDir())
	compare(t, filepath.Join(dir, strconv.Itoa(first)), again, 4)
}

func TestNotifydRPM(t *testing.T) {
	t.Parallel()
	m := notifydMachine(t)
	dnfNotifyd(m, first, "install", "debian-provides")
	before := files(m)

	dnfNotifyd(m, first, "install", "scoutfs-notifyd")
	equal(t, "rpm -V", lines(m.sh("rpm -V scoutfs-notifyd")), nil)
	checkNotifyd(t, m, "1")
	// where zsh looks in the RHEL family
	m.sh("test -f /usr/share/zsh/site-functions/_scoutfs-notify")
	// The plain release number, which nfpm could have made a semantic version.
	equal(t, "package", lines(m.sh("rpm -q scoutfs-notifyd")), []string{"scoutfs-notifyd-1-1.x86_64"})
	contains(t, m.run("rpm", "-q", "--changelog", "scoutfs-notifyd"), " "+maintainer(t)+" - 1-1\n- First release: ")

	m.run("systemctl", "enable", "scoutfs-notifyd@mnt-a", "scoutfs-notifyd@mnt-b")
	links := func() []string { return lines(m.sh("find /etc/systemd -name '*scoutfs*'")) }
	enabled := []string{
		"/etc/systemd/system/mnt-a.mount.wants", "/etc/systemd/system/mnt-a.mount.wants/scoutfs-notifyd@mnt-a.service",
		"/etc/systemd/system/mnt-b.mount.wants", "/etc/systemd/system/mnt-b.mount.wants/scoutfs-notifyd@mnt-b.service",
	}
	equal(t, "links", links(), []string{enabled[1], enabled[3]})

	dnfNotifyd(m, second, "upgrade", "scoutfs-notifyd")
	equal(t, "rpm -V", lines(m.sh("rpm -V scoutfs-notifyd")), nil)
	checkNotifyd(t, m, "2")
	equal(t, "links after upgrade", links(), []string{enabled[1], enabled[3]})

	// As it is typed, without a name.
	m.run("systemctl", "enable", "scoutfs-notifyd@")
	equal(t, "links without a name", links(), []string{
		"/etc/systemd/system/mnt-scoutfs.mount.wants",
		"/etc/systemd/system/mnt-scoutfs.mount.wants/scoutfs-notifyd@mnt-scoutfs.service", enabled[1], enabled[3]})

	dnfNotifyd(m, second, "remove", "scoutfs-notifyd")
	equal(t, "files after removal", files(m), before)
}

// The daemon's package does not require a module's: the admin picks the release.
func TestNotifydAlone(t *testing.T) {
	t.Parallel()
	m := notifydMachine(t)
	dnfNotifyd(m, first, fmt.Sprintf("--repofrompath=release%d,file://%s", first, repoOf(first)), "install", "scoutfs-notifyd")
	equal(t, "packages", lines(m.sh("rpm -qa '*scoutfs*'")), []string{"scoutfs-notifyd-1-1.x86_64"})
}

func TestNotifydDeb(t *testing.T) {
	t.Parallel()
	m := notifydMachine(t)
	deb := func(release int) string {
		return fmt.Sprintf("%s/%d/scoutfs-notifyd_%d-1_amd64.deb", notifydDir, release, release)
	}
	dpkg := func(args ...string) { m.run(append([]string{"dpkg"}, args...)...) }
	before := files(m)
	contains(t, m.run("dpkg", "-i", deb(first)), "debs for Debian 11's kernel")
	who := maintainer(t)
	equal(t, "maintainer", lines(m.run("dpkg-query", "-W", "-f", "${Maintainer}\\n", "scoutfs-notifyd")), []string{who})
	// dpkg-parsechangelog only warns about entries that it cannot read.
	out := m.sh("zcat /usr/share/doc/scoutfs-notifyd/changelog.Debian.gz > /tmp/changelog; dpkg-parsechangelog -l /tmp/changelog")
	contains(t, out, "Source: scoutfs-notifyd\n", "Version: 1-1\n", "Distribution: unstable\n", "Maintainer: "+who+"\n", "   * First release: ")
	if strings.Contains(out, "warning") {
		t.Errorf("dpkg-parsechangelog: %s", out)
	}
	equal(t, "dpkg -V", lines(m.sh("dpkg -V scoutfs-notifyd")), nil)
	checkNotifyd(t, m, "1")
	// where zsh looks in Debian
	m.sh("test -f /usr/share/zsh/vendor-completions/_scoutfs-notify")
	m.run("systemctl", "enable", "scoutfs-notifyd@mnt-a")
	dpkg("-i", deb(second))
	checkNotifyd(t, m, "2")
	// What is enabled stays so until the package is purged.
	const link = "/etc/systemd/system/mnt-a.mount.wants/scoutfs-notifyd@mnt-a.service"
	dpkg("--remove", "scoutfs-notifyd")
	equal(t, "links after removal", lines(m.sh("find /etc/systemd -name '*scoutfs*.service'")), []string{link})
	dpkg("-i", deb(first))
	equal(t, "enabled", lines(m.run("systemctl", "is-enabled", "scoutfs-notifyd@mnt-a")), []string{"enabled"})
	dpkg("--remove", "scoutfs-notifyd")
	dpkg("--purge", "scoutfs-notifyd")
	equal(t, "files after removal", files(m), before)
}

// maintainer returns the name and address in packaging/changelog's newest entry.
func maintainer(t *testing.T) string {
	t.Helper()
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(repo, "packaging", "changelog"))
	if err != nil {
		t.Fatal(err)
	}
	// So far it is the same in all entries.
	found := regexp.MustCompile(`^\* \w+ \w+ \d+ \d+ (.+) - \d+\n`).FindStringSubmatch(string(text))
	if found == nil {
		t.Fatalf("packaging/changelog does not begin with a release:\n%s", text)
	}
	return found[1]
}

// checkNotifyd checks an installed package: programs, folder, man pages, header, unit.
func checkNotifyd(t *testing.T, m *machine, version string) {
	t.Helper()
	for _, name := range []string{"scoutfs-notifyd", "scoutfs-notify", "scoutfs-notify-index"} {
		equal(t, name+" -version", lines(m.run(name, "-version")), []string{name + " " + version})
	}
	equal(t, "folder for sockets", lines(m.sh("stat -c '%A %U %n' /run/scoutfs")), []string{"drwxr-xr-x root /run/scoutfs"})
	for _, page := range []string{"1 scoutfs-notify", "1 scoutfs-notify-picture", "1 scoutfs-notify-record", "1 scoutfs-notify-replay",
		"1 scoutfs-notify-socket", "1 scoutfs-notify-stat",
		"1 scoutfs-notify-tail", "1 scoutfs-notify-top", "5 scoutfs-notify", "8 scoutfs-notify-index", "8 scoutfs-notifyd"} {
		section, name, _ := strings.Cut(page, " ")
		file := fmt.Sprintf("/usr/share/man/man%s/%s.%s.gz", section, name, section)
		equal(t, "warnings about "+file, lines(m.sh("zcat "+file+" | mandoc -T lint -W warning; man --warnings -l -Tutf8 -Z "+file+" 2>&1 >/dev/null")), nil)
	}
	for _, name := range []string{"scoutfs-notify", "scoutfs-notify-index"} {
		// as bash-completion loads it
		equal(t, "completion of "+name, lines(m.run("bash", "-c", ". /usr/share/bash-completion/completions/"+name+"; complete -p "+name)),
			[]string{"complete -F _scoutfs_notify " + name})
	}
	// The headers compile by themselves, from where the compiler looks for them.
	m.sh(`cat > /tmp/consumer.c <<'END'
#include <scoutfs/notify_ioctl.h>
#include <scoutfs/notify_socket.h>
_Static_assert(sizeof(struct scoutfs_notify_record) == 64, "record");
_Static_assert(SCOUTFS_IOC_READ_NOTIFY == 0xc020e819, "command");
_Static_assert(sizeof(struct scoutfs_notify_request) == 1088, "request");
END
gcc -std=c11 -Wall -Wextra -Werror -c -o /tmp/consumer.o /tmp/consumer.c`)
	checkUnit(t, m, "scoutfs-notifyd")
	checkUnit(t, m, "scoutfs-notify-index")
}

var exposureRE = regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`)

// checkUnit runs systemd's own checks on an installed unit.
func checkUnit(t *testing.T, m *machine, name string) {
	t.Helper()
	// verify complains about unknown units, so the instance needs its mount.
	m.sh(`printf '[Mount]\nWhat=none\nWhere=/mnt/x\nType=scoutfs\n' > /run/mnt-x.mount`)
	out, err := m.try("sh", "-c", "SYSTEMD_UNIT_PATH=/run: systemd-analyze verify --man=no "+name+"@mnt-x.service; rm /run/mnt-x.mount")
	if err != nil || strings.Contains(out, "scoutfs") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out = m.sh(strings.ReplaceAll(`cp /usr/lib/systemd/system/UNIT@.service /tmp/UNIT@mnt-x.service
systemd-analyze security --no-pager --offline=true /tmp/UNIT@mnt-x.service`, "UNIT", name))
	found := exposureRE.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("systemd-analyze security prints no exposure level:\n%s", out)
	}
	// It was 2.0 with a mount namespace, which the unit's comments say why not to have, and
	// 3.1 without sched_setscheduler.
	if level, err := strconv.ParseFloat(found[1], 64); err != nil || level > 3.2 {
		t.Errorf("exposure level %s is above 3.2:\n%s", found[1], out)
	}
}

// rpmlint reports no errors, other than those that packaging/rpmlint.toml filters.
func TestRpmlint(t *testing.T) {
	t.Parallel()
	dir := notifydPackages(t)
	m := builder(t, buildOnce.dir)
	m.jail.Mounts = append(m.jail.Mounts, bind{Source: dir, Target: notifydDir})
	for _, rpm := range lines(m.sh("ls " + repoOf(first) + "/*.rpm " + notifydDir + "/1/*.rpm")) {
		out, err := m.try("rpmlint", "-c", repoDir+"/packaging/rpmlint.toml", rpm)
		if err != nil || !strings.Contains(out, " 0 errors") {
			t.Errorf("rpmlint %s: %v\n%s", rpm, err, out)
		}
	}
}
