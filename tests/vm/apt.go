// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

var (
	aptComment = regexp.MustCompile(`(?m)^#.*\n`)
	aptStanza  = regexp.MustCompile(`(?m)(^.*\S.*\n)+`)
	// aptOptions captures the options in brackets of a one-line entry, if any.
	aptOptions = regexp.MustCompile(`^[^\[#]*(?:\[([^\]]*)\])?`)
	// aptServes matches the fields that say what to fetch, by either form's names.
	aptServes = regexp.MustCompile(`(?im)^(enabled|types|uris|suites|components|arch|lang|target)[^:\n]*:.*\n([ \t].*\n)*`)
)

// retarget returns an entry of apt's sources, "file:number", as a deb822 stanza for
// another suite of the archive at uri. It keeps the entry's other fields, such as
// trusted and the key, which may be inline: apt-get indextargets does not print them.
func retarget(entry, uri, suite string) (string, error) {
	file, number, _ := strings.Cut(entry, ":")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read apt's sources: %w", err)
	}
	deb822 := strings.HasSuffix(file, ".sources")
	all := strings.Split(string(text), "\n")
	if deb822 { // apt does not count a stanza that has only comments
		all = aptStanza.FindAllString(aptComment.ReplaceAllString(string(text)+"\n", ""), -1)
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(all) {
		return "", fmt.Errorf("find entry %q of apt's sources: %s has %d", number, file, len(all))
	}
	fields := all[n-1]
	if !deb822 {
		options := strings.Fields(aptOptions.FindStringSubmatch(fields)[1])
		fields = ""
		for _, o := range options {
			name, value, _ := strings.Cut(o, "=")
			fields += name + ": " + strings.ReplaceAll(value, ",", " ") + "\n"
		}
	}
	return fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: amd64\n%s\n",
		uri, suite, aptServes.ReplaceAllString(fields, "")), nil
}

// apt is a private instance of apt: it has its own lists, cache and sources, and
// the machine's proxies, credentials and trusted keys. It checks signatures and
// hashes as apt always does, and needs no root.
type apt struct{ dir, conf string }

// newApt makes an instance in dir for one suite of Debian, and fetches the package
// lists.
func newApt(ctx context.Context, dir, suite string) (*apt, error) {
	if _, err := run.Tool("apt-get", "apt"); err != nil {
		return nil, fmt.Errorf("%w (or set KERNEL_DIR to a kernel of your own)", err)
	}
	archives, err := debianArchives(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w; or set KERNEL_DIR to a kernel of your own", err)
	}
	var sources strings.Builder
	for _, uri := range slices.Sorted(maps.Keys(archives)) {
		stanza, err := retarget(archives[uri], uri, suite)
		if err != nil {
			return nil, err
		}
		sources.WriteString(stanza)
	}
	a := &apt{dir: dir, conf: filepath.Join(dir, "apt.conf")}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "parts"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	// apt's sandbox user cannot write here, and the machine's hooks are only about
	// the machine's own state.
	conf := fmt.Sprintf(`Dir::State "%[1]s/state";
Dir::State::status "%[1]s/state/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/debian.sources";
Dir::Etc::sourceparts "%[1]s/parts";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "%[1]s/parts";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures "amd64";
APT::Sandbox::User "";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
`, dir)
	for name, text := range map[string]string{"apt.conf": conf, "debian.sources": sources.String(), "state/status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	// Without Error-Mode=any, a list that cannot be fetched is only a warning.
	if _, err := run.Output(ctx, "apt-get", "-q", "-c", a.conf, "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return nil, fmt.Errorf("fetch the package lists of Debian %s: %w", suite, err)
	}
	return a, nil
}

// depends returns the packages that pkg depends on, in the order it lists them.
func (a *apt) depends(ctx context.Context, pkg string) ([]string, error) {
	out, err := run.Output(ctx, "apt-cache", "-c", a.conf, "depends", pkg)
	if err != nil {
		return nil, err
	}
	var deps []string
	for line := range strings.Lines(out) {
		if d, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			deps = append(deps, d)
		}
	}
	return deps, nil
}

// download fetches packages and returns the path of each one.
func (a *apt) download(ctx context.Context, pkgs ...string) (map[string]string, error) {
	c := run.Command{Dir: a.dir, Argv: append([]string{"apt-get", "-q", "-c", a.conf, "download"}, pkgs...)}
	if _, err := c.Output(ctx); err != nil {
		return nil, err
	}
	debs := map[string]string{}
	for _, pkg := range pkgs {
		m, err := filepath.Glob(filepath.Join(a.dir, pkg+"_*.deb"))
		if err != nil {
			return nil, err
		}
		if len(m) != 1 {
			return nil, fmt.Errorf("download %s: %d files instead of one", pkg, len(m))
		}
		debs[pkg] = m[0]
	}
	return debs, nil
}
