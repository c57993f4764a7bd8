// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// aptSource is one stanza of sources.list(5): the fields of its deb822 form,
// names in lower case, continuation lines kept with their line feeds.
type aptSource map[string]string

// words returns a field's blank-separated values.
func (s aptSource) words(field string) []string { return strings.Fields(s[field]) }

// parseDeb822 parses a *.sources file.
func parseDeb822(text string) ([]aptSource, error) {
	var all []aptSource
	var cur aptSource
	var last string
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		switch {
		case line == "":
			cur, last = nil, ""
		case strings.HasPrefix(line, "#"):
			// A comment does not end a stanza.
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return nil, fmt.Errorf("line %d: a continuation line without a field", n+1)
			}
			cur[last] += "\n" + line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t") {
				return nil, fmt.Errorf("line %d: no field name", n+1)
			}
			if cur == nil {
				cur = aptSource{}
				all = append(all, cur)
			}
			last = strings.ToLower(name)
			cur[last] = strings.TrimSpace(value)
		}
	}
	return all, nil
}

var oneLine = regexp.MustCompile(`^(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)$`)

// optionFields gives the deb822 field of a one-line option whose name differs.
var optionFields = map[string]string{"arch": "architectures", "lang": "languages", "target": "targets"}

// parseOneLine parses a sources.list or *.list file.
func parseOneLine(text string) ([]aptSource, error) {
	var all []aptSource
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		m := oneLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d: not a source", n+1)
		}
		s := aptSource{"types": m[1], "uris": m[3], "suites": m[4], "components": m[5]}
		for _, opt := range strings.Fields(m[2]) {
			name, value, ok := strings.Cut(opt, "=")
			if !ok {
				return nil, fmt.Errorf("line %d: option %q has no value", n+1, opt)
			}
			name = strings.ToLower(strings.TrimRight(name, "+-"))
			if f, ok := optionFields[name]; ok {
				name = f
			}
			s[name] = strings.ReplaceAll(value, ",", " ")
		}
		all = append(all, s)
	}
	return all, nil
}

// debianSuite matches the names of Debian's releases, without the suffixes of
// their update suites.
var debianSuite = regexp.MustCompile(`^(buster|bullseye|bookworm|trixie|forky|duke|sid|(oldold|old)?stable|testing|unstable)/?$`)

// forSuite returns the sources of a machine that serve Debian's main archive,
// pointed to another suite of it.
func forSuite(all []aptSource, suite string) []aptSource {
	var out []aptSource
	for _, s := range all {
		switch {
		case !slices.Contains(s.words("types"), "deb"),
			strings.EqualFold(s["enabled"], "no"),
			!slices.Contains(s.words("components"), "main"),
			!slices.ContainsFunc(s.words("suites"), debianSuite.MatchString):
			continue
		}
		n := aptSource{"types": "deb", "suites": suite, "components": "main", "architectures": "amd64"}
		for field, value := range s {
			if _, ok := n[field]; !ok && field != "targets" && field != "languages" {
				n[field] = value
			}
		}
		out = append(out, n)
	}
	return out
}

// format writes sources in deb822 form.
func format(all []aptSource) string {
	var b strings.Builder
	for _, s := range all {
		fields := make([]string, 0, len(s))
		for f := range s {
			fields = append(fields, f)
		}
		slices.Sort(fields)
		for _, f := range fields {
			fmt.Fprintf(&b, "%s: %s\n", f, s[f])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// machineSources reads the sources that apt is configured with here.
func machineSources(ctx context.Context) ([]aptSource, error) {
	out, err := run.Output(ctx, "apt-config", "shell", "list", "Dir::Etc::sourcelist/f", "parts", "Dir::Etc::sourceparts/d")
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, "'")
		switch name {
		case "list":
			files = append(files, value)
		case "parts":
			for _, pattern := range []string{"*.list", "*.sources"} {
				m, err := filepath.Glob(filepath.Join(value, pattern))
				if err != nil {
					return nil, err
				}
				files = append(files, m...)
			}
		}
	}
	var all []aptSource
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		parse := parseOneLine
		if strings.HasSuffix(f, ".sources") {
			parse = parseDeb822
		}
		s, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", f, err)
		}
		all = append(all, s...)
	}
	return all, nil
}

// apt is a private instance of apt: lists, cache and sources in a folder of its
// own, the rest (proxies, credentials, trusted keys) as the machine has it. It
// checks signatures and hashes as apt always does, and needs no root.
type apt struct{ dir, conf string }

// newApt makes an instance in dir for one suite of Debian and fetches its lists.
func newApt(ctx context.Context, dir, suite string) (*apt, error) {
	if _, err := run.Tool("apt-get", "apt"); err != nil {
		return nil, fmt.Errorf("%w (or set KERNEL_DIR to a kernel of your own)", err)
	}
	all, err := machineSources(ctx)
	if err != nil {
		return nil, fmt.Errorf("read apt's sources: %w", err)
	}
	sources := forSuite(all, suite)
	if len(sources) == 0 {
		return nil, errors.New("read apt's sources: no enabled one is a Debian archive with the component main; " +
			"add one, or set KERNEL_DIR to a kernel of your own")
	}
	a := &apt{dir: dir, conf: filepath.Join(dir, "apt.conf")}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "parts"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	// The sandbox user could not write here, and the machine's hooks are about
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
	for name, text := range map[string]string{"apt.conf": conf, "debian.sources": format(sources), "state/status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	// Without Error-Mode=any a failed fetch of the lists would be a warning.
	if _, err := run.Output(ctx, "apt-get", "-q", "-c", a.conf, "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return nil, fmt.Errorf("fetch the package lists of Debian %s: %w", suite, err)
	}
	return a, nil
}

// depends returns the packages that pkg depends on, in the package's order.
func (a *apt) depends(ctx context.Context, pkg string) ([]string, error) {
	out, err := run.Output(ctx, "apt-cache", "-c", a.conf, "depends", pkg)
	if err != nil {
		return nil, err
	}
	var deps []string
	sc := bufio.NewScanner(strings.NewReader(out))
	for sc.Scan() {
		if d, ok := strings.CutPrefix(strings.TrimSpace(sc.Text()), "Depends: "); ok {
			deps = append(deps, d)
		}
	}
	return deps, sc.Err()
}

// download fetches packages and returns the path of each one's file.
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
