// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// aptWith makes apt use only these sources, by file name, for the rest of the test.
func aptWith(t *testing.T, sources map[string]string) {
	t.Helper()
	if _, err := run.Tool("apt-get", "apt"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "state/lists/partial/.keep"), "")
	for name, text := range sources {
		write(t, filepath.Join(dir, "parts", name), text)
	}
	conf := filepath.Join(dir, "apt.conf")
	write(t, conf, fmt.Sprintf(`Dir::State "%[1]s/state";
Dir::State::status "/dev/null";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "%[1]s/parts";
APT::Sandbox::User "";
#clear APT::Update::Post-Invoke-Success;
`, dir))
	t.Setenv("APT_CONFIG", conf)
	if _, err := run.Output(t.Context(), "apt-get", "-q", "update"); err != nil {
		t.Fatal(err)
	}
}

// archiveOf makes an unsigned archive with the one suite bookworm.
func archiveOf(t *testing.T, origin string) (uri string) {
	t.Helper()
	dir := t.TempDir()
	packages := "Package: x\nVersion: 1\nArchitecture: amd64\nFilename: x.deb\nSize: 1\nSHA256: " + strings.Repeat("0", 64) + "\n"
	dist := filepath.Join(dir, "dists/bookworm")
	write(t, filepath.Join(dist, "main/binary-amd64/Packages"), packages)
	write(t, filepath.Join(dist, "Release"), fmt.Sprintf("Origin: %s\nLabel: %[1]s\nCodename: bookworm\n"+
		"Date: Wed, 01 Jan 2025 00:00:00 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages\n",
		origin, sha256.Sum256([]byte(packages)), len(packages)))
	return "file:" + dir + "/"
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRetarget checks that entries are counted as apt counts them, and keep their keys.
func TestRetarget(t *testing.T) {
	debian := func() string { return archiveOf(t, "Debian") }
	line, plain, one, two, keyed := debian(), debian(), debian(), debian(), debian()
	const key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n KEY\n"
	aptWith(t, map[string]string{
		"a.list": "# a comment\n\ndeb [arch=amd64,i386 signed-by=/a.gpg,/b.gpg trusted=yes] " + line + " bookworm main # [note]\n" +
			"deb [trusted=yes] " + archiveOf(t, "Ubuntu") + " bookworm main\n",
		"b.sources": "# alone\n\n# a comment\nTypes: deb\n# another\nURIs: " + one + "\n " + two + "\nSuites: bookworm\nComponents: main\n" +
			"Languages: en\nTrusted: yes\n\n\n" +
			"Enabled: no\nTypes: deb\nURIs: " + plain + "\nSuites: bookworm\nComponents: main\n\n# between\n \n" +
			"Trusted: yes\nTypes: deb\nURIs: " + keyed + "\nSuites: bookworm\nComponents: main\n" + key,
		"c.list": "deb [trusted=yes] " + plain + " bookworm main", // without a line feed
	})
	got, err := debianArchives(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for uri, entry := range got {
		if got[uri], err = retarget(entry, uri, "bullseye"); err != nil {
			t.Error(err)
		}
	}
	want := map[string]string{
		line: "signed-by: /a.gpg /b.gpg\ntrusted: yes\n", plain: "trusted: yes\n",
		one: "Trusted: yes\n", two: "Trusted: yes\n", keyed: "Trusted: yes\n" + key,
	}
	for uri, fields := range want {
		want[uri] = "Types: deb\nURIs: " + uri + "\nSuites: bullseye\nComponents: main\nArchitectures: amd64\n" + fields + "\n"
	}
	if !maps.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// TestNoArchive checks that a machine without Debian's archive is told what to do.
func TestNoArchive(t *testing.T) {
	aptWith(t, map[string]string{"a.list": "deb [trusted=yes] " + archiveOf(t, "Ubuntu") + " bookworm main\n"})
	_, err := newApt(t.Context(), t.TempDir(), "bullseye")
	if err == nil || !strings.Contains(err.Error(), "apt-get update") || !strings.Contains(err.Error(), "KERNEL_DIR") {
		t.Errorf("error %v, want one that names apt-get update and KERNEL_DIR", err)
	}
}
