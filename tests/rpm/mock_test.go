// SPDX-License-Identifier: GPL-2.0-only

package rpm

import "testing"

// rebuilder takes mock's place, which Debian does not have: it takes the arguments
// that the real one was tried with, and rebuilds in the machine as it is.
const rebuilder = `#!/bin/sh
set -eu
[ "$1 $3 $5" = "--root --resultdir --rebuild" ]
[ $# -eq 6 ] && [ -f "$2" ] && [ -f "$6" ]
mkdir -p "$4"
if [ -e /fail ]; then
	echo "error: as asked for" > "$4/build.log"
	exit 1
fi
rpmbuild --rebuild --nodeps --define "_topdir /tmp/mock" --define "_rpmdir $4" \
	--define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" "$6" > "$4/build.log" 2>&1
cp "$6" "$4"
`

// What mock rebuilds lands in dist, and holds what "build rpm" packages.
func TestMock(t *testing.T) {
	t.Parallel()
	packages(t)
	m := builder(t, buildOnce.dir)
	m.sh("cat > /usr/bin/mock <<'END'\n" + rebuilder + "END\nchmod +x /usr/bin/mock")
	for _, chroot := range []string{"el8", "el9"} {
		if out, err := tryBuild(m, first, []string{"DIST_DIR=/out/" + chroot}, "mock", chroot); err != nil {
			t.Fatalf("build mock %s: %v\n%s", chroot, err, out)
		}
		content := func(dir string) []string {
			return lines(m.sh("cd " + dir + "; for rpm in *.rpm; do rpm -qp --qf \"[$rpm %{FILENAMES} %{FILEDIGESTS}\\n]\" $rpm; done"))
		}
		equal(t, "files of packages", content("/out/"+chroot), content(repoOf(first)))
	}
	m.sh("touch /fail")
	out, err := tryBuild(m, first, []string{"DIST_DIR=/out"}, "mock", "el9")
	if err == nil {
		t.Error("mock failed and build did not")
	}
	contains(t, out, "rebuild scoutfs-notify-kmod-v9.1-9.1-1.src.rpm in el9", "error: as asked for")
	m.sh("rm /usr/bin/mock")
	out, err = tryBuild(m, first, []string{"DIST_DIR=/out"}, "mock", "el9")
	if err == nil {
		t.Error("built without mock")
	}
	contains(t, out, "dnf install mock")
}
