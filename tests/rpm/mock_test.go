// SPDX-License-Identifier: GPL-2.0-only

package rpm

import "testing"

// rebuilder replaces mock, which Debian does not have. It accepts only the arguments
// that were tried with the real one, and rebuilds in the machine itself.
const rebuilder = `#!/bin/sh
set -eu
[ "$1 $3" = "--root --resultdir" ] && [ -f "$2" ]
mkdir -p "$4"
results=$4
shift 4
with=
if [ "$1 $2" = "--with compile_check" ]; then
	with="$1 $2"
	shift 2
fi
[ $# -eq 2 ] && [ "$1" = --rebuild ] && [ -f "$2" ]
if [ -e /fail ]; then
	echo "error: as asked for" > "$results/build.log"
	exit 1
fi
rpmbuild --rebuild --nodeps $with --define "_topdir /tmp/mock" --define "_rpmdir $results" \
	--define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" "$2" > "$results/build.log" 2>&1
cp "$2" "$results"
`

// mock's results are put into dist, with the same files as those of "packages rpm".
func TestMock(t *testing.T) {
	t.Parallel()
	packages(t)
	m := builder(t, buildOnce.dir)
	m.sh("cat > /usr/bin/mock <<'END'\n" + rebuilder + "END\nchmod +x /usr/bin/mock")
	for _, chroot := range []string{"el8", "el9", "el10"} {
		if out, err := tryBuild(m, first, []string{"DIST_DIR=/out/" + chroot}, "mock", chroot); err != nil {
			t.Fatalf("build mock %s: %v\n%s", chroot, err, out)
		}
		content := func(dir string) []string {
			return lines(m.sh("cd " + dir + "; for rpm in *.rpm; do rpm -qp --qf \"[$rpm %{FILENAMES} %{FILEDIGESTS}\\n]\" $rpm; done"))
		}
		equal(t, "files of packages", content("/out/"+chroot), content(repoOf(first)))
	}
	// Only the named release, and with the compile check.
	if out, err := tryBuild(m, first, []string{"DIST_DIR=/out/one"}, "mock", "el9", "v9.2"); err != nil {
		t.Fatalf("build mock el9 v9.2: %v\n%s", err, out)
	}
	equal(t, "packages", lines(m.sh("ls /out/one")), []string{kmod92 + "-9.2-1.noarch.rpm", kmod92 + "-9.2-1.src.rpm"})
	m.sh("mkdir -p /usr/src/kernels; ln -s $(readlink -f /lib/modules/" + kernels(m)[0] + "/build) /usr/src/kernels/")
	if out, err := tryBuild(m, broken, []string{"DIST_DIR=/out/unchecked"}, "mock", "el9", "v9.1"); err != nil {
		t.Errorf("without the compile check: %v\n%s", err, out)
	}
	out, err := tryBuild(m, broken, []string{"DIST_DIR=/out/checked", "COMPILE_CHECK=1"}, "mock", "el9", "v9.1")
	if err == nil {
		t.Error("mock packaged a module that does not compile")
	}
	contains(t, out, "rebuild scoutfs-notify-kmod-v9.1-9.1-3.src.rpm in el9", "(%check)")
	m.sh("touch /fail")
	out, err = tryBuild(m, first, []string{"DIST_DIR=/out"}, "mock", "el9")
	if err == nil {
		t.Error("mock failed, but the build did not")
	}
	contains(t, out, "rebuild scoutfs-notify-kmod-v9.1-9.1-1.src.rpm in el9", "error: as asked for")
	m.sh("rm /usr/bin/mock")
	out, err = tryBuild(m, first, []string{"DIST_DIR=/out"}, "mock", "el9")
	if err == nil {
		t.Error("built without mock")
	}
	contains(t, out, "dnf install mock")
}
