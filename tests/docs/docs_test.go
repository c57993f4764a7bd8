// SPDX-License-Identifier: GPL-2.0-only

// Package docs checks the documentation against what it documents.
package docs

import (
	"encoding"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root(t)}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func submatches(re, text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(re).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// The README's table lists exactly the supported releases.
func TestReleases(t *testing.T) {
	want, err := series.Versions(filepath.Join(root(t), "patches"))
	if err != nil {
		t.Fatal(err)
	}
	got := submatches(`(?m)^\| (v[0-9.]+) \|`, read(t, "README.md"))
	if !slices.Equal(got, want) {
		t.Errorf("README.md lists releases %v, patches/ has %v", got, want)
	}
}

// The pattern for the node exporter, which matches folders as Go does, matches one
// before any daemon has started: an empty one that tmpfiles makes.
func TestTextfilePattern(t *testing.T) {
	made := submatches(`(?m)^d (\S+) 0755 root root -$`, read(t, "packaging/tmpfiles.conf"))
	for _, doc := range []string{"README.md", "packaging/man/scoutfs-notifyd.8"} {
		patterns := submatches(`--collector\.textfile\.directory='([^']+)'`, read(t, doc))
		if len(patterns) != 1 {
			t.Errorf("%s has the patterns %q, not one", doc, patterns)
			continue
		}
		if !slices.ContainsFunc(made, func(dir string) bool {
			ok, err := filepath.Match(patterns[0], dir)
			return ok && err == nil
		}) {
			t.Errorf("%s: %s matches none of the folders of tmpfiles.conf: %q", doc, patterns[0], made)
		}
	}
}

// The Makefile has every target that a document names, and links lead to files.
func TestTargets(t *testing.T) {
	targets := submatches(`(?m)^([a-z][a-z0-9-]*):`, read(t, "Makefile"))
	for _, line := range strings.Split(read(t, "Makefile"), "\n") {
		if names, _, ok := strings.Cut(line, ": ##"); ok {
			targets = append(targets, strings.Fields(names)...)
		}
	}
	docs, err := filepath.Glob(filepath.Join(root(t), "docs/*.md"))
	if err != nil || len(docs) == 0 {
		t.Fatalf("no documents in docs/: %v", err)
	}
	for _, doc := range append(docs, filepath.Join(root(t), "README.md")) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range submatches("(?m)(?:`|^)make ([a-z][a-z0-9.-]*)", string(text)) {
			if !slices.Contains(targets, name) && !strings.HasPrefix(name, "kmod-v") {
				t.Errorf("%s names make %s, which the Makefile does not have", filepath.Base(doc), name)
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", filepath.Base(doc), m[1])
			}
		}
	}
}

// programs are the commands with their man pages.
var programs = []struct{ name, page string }{
	{"scoutfs-notifyd", "scoutfs-notifyd.8"},
	{"scoutfs-notify", "scoutfs-notify.1"},
	{"scoutfs-notify-index", "scoutfs-notify-index.8"},
}

// help returns a program's -help, and that of its commands by name.
func help(t *testing.T, program string) (text string, commands map[string]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	if err := vm.BuildProgram(t.Context(), "./cmd/"+program, path); err != nil {
		t.Fatal(err)
	}
	ask := func(args ...string) string {
		out, err := exec.Command(path, append(args, "-help")...).Output()
		if err != nil {
			t.Fatalf("%s %v -help: %v", program, args, err)
		}
		return string(out)
	}
	text, commands = ask(), make(map[string]string)
	if _, list, ok := strings.Cut(text, "\nCommands:\n"); ok {
		list, _, _ = strings.Cut(list, "\n\n")
		for _, name := range submatches(`(?m)^  ([a-z]+) `, list) {
			commands[name] = ask(name)
		}
	}
	return text, commands
}

// What -help says the man pages say: which commands there are, and the flags of each in a
// page of its own. Those that several have as filters are in scoutfs-notify(1).
func TestManPages(t *testing.T) {
	t.Parallel()
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			text, commands := help(t, p.name)
			page := read(t, "packaging/man", p.page)
			listed := submatches(`(?m)^\.Cm ([a-z]+)$`, section(t, page, "SYNOPSIS"))
			if want := slices.Sorted(maps.Keys(commands)); !slices.Equal(listed, want) {
				t.Errorf("-help lists the commands %v, %s lists %v", want, p.page, listed)
			}
			if _, list, ok := strings.Cut(text, "\nExit status: "); ok {
				said := submatches(`(?:^|[ \n])(\d+) (?:when|for|if)\b`, list)
				documented := submatches(`(?m)^\.It (\d+)$`, section(t, page, "EXIT STATUS"))
				if !slices.Equal(said, documented) {
					t.Errorf("-help has the exit statuses %v, %s has %v", said, p.page, documented)
				}
			}
			if len(commands) == 0 || strings.HasSuffix(p.page, ".8") { // one page
				for _, of := range commands {
					text += of
				}
				checkFlags(t, p.page, page, text, nil)
				return
			}
			filters := submatches(`(?m)^\.It Fl ([0-9a-z-]+)`, section(t, page, "FILTERS"))
			for name, text := range commands {
				if !strings.Contains(text, "\nFlags:\n") {
					continue // it has none, or is another program's
				}
				file := p.name + "-" + name + ".1"
				page := read(t, "packaging/man", file)
				section(t, page, "EXAMPLES")
				var also []string
				if strings.Contains(section(t, page, "SYNOPSIS"), "\n.Op Ar filter ...\n") {
					also = filters
				}
				checkFlags(t, file, page, text, also)
			}
		})
	}
}

// checkFlags compares the flags of a page and of its synopsis with those of a -help text.
func checkFlags(t *testing.T, name, page, text string, filters []string) {
	t.Helper()
	got := submatches(`(?m)^  -([0-9a-z-]+)`, text)
	if len(got) == 0 {
		t.Errorf("%s: no flags were found in\n%s", name, text)
	}
	for _, filter := range filters {
		i := slices.Index(got, filter)
		if i < 0 {
			t.Errorf("-help lacks the filter -%s, which %s has", filter, name)
			continue
		}
		got = slices.Delete(got, i, i+1)
	}
	if want := submatches(`(?m)^\.It Fl ([0-9a-z-]+)`, page); !slices.Equal(got, want) {
		t.Errorf("-help lists the flags %v, %s lists %v", got, name, want)
	}
	if want := submatches(`Fl ([0-9a-z-]+)`, section(t, page, "SYNOPSIS")); !slices.Equal(got, want) {
		t.Errorf("-help lists the flags %v, the synopsis of %s %v", got, name, want)
	}
}

// The project's files and man pages that a text names exist.
func TestNames(t *testing.T) {
	t.Parallel()
	texts := make(map[string]string)
	for _, pattern := range []string{"README.md", "docs/*.md", "packaging/man/*"} {
		files, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[filepath.Base(file)] = string(text)
		}
	}
	for _, p := range programs {
		text, commands := help(t, p.name)
		texts[p.name+" -help"] = text + strings.Join(slices.Collect(maps.Values(commands)), "")
	}
	paths := regexp.MustCompile("(?m)(?:^|[\\s(`\"'])((?:cmd|daemon|dkms|docs|mock|notify|packaging|patches|tests|tools)/[A-Za-z0-9._/-]*)")
	release := regexp.MustCompile(`/v[0-9X]+\.[0-9Y]+`)
	pages := regexp.MustCompile(`\b(scoutfs-notify(?:d|-[a-z]+)?)(?:\(| )([1-8])\b`)
	for name, text := range texts {
		for _, m := range paths.FindAllStringSubmatch(text, -1) {
			path := strings.TrimRight(m[1], ".")
			if release.MatchString(path) { // an example, which need not exist
				continue
			}
			if _, err := os.Stat(filepath.Join(root(t), path)); err != nil {
				t.Errorf("%s names %s, which does not exist", name, path)
			}
		}
		for _, m := range pages.FindAllStringSubmatch(text, -1) {
			if page := m[1] + "." + m[2]; texts[page] == "" {
				t.Errorf("%s names %s(%s), which does not exist", name, m[1], m[2])
			}
		}
	}
}

// section returns a section of a man page.
func section(t *testing.T, page, name string) string {
	t.Helper()
	_, text, ok := strings.Cut(page, "\n.Sh "+name+"\n")
	if !ok {
		t.Fatalf("there is no section %s", name)
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	return text
}

// The man pages document the programs' metrics: their names, types and labels. The
// programs' own tests compare the files with the code.
func TestMetrics(t *testing.T) {
	all := make(map[string]string)
	for _, p := range []struct{ file, page string }{
		{"daemon/testdata/metrics.prom", "scoutfs-notifyd.8"},
		{"cmd/scoutfs-notify-index/testdata/metrics.prom", "scoutfs-notify-index.8"},
	} {
		t.Run(p.page, func(t *testing.T) { maps.Copy(all, checkMetrics(t, p.file, p.page)) })
	}
	for _, name := range submatches(`(?m)\b(scoutfs_notify_[a-z_]+)`, read(t, "README.md")) {
		if all[name] == "" {
			t.Errorf("README.md: there is no metric %s", name)
		}
	}
}

// checkMetrics compares a page with the metrics in a file, and returns their types.
func checkMetrics(t *testing.T, file, name string) map[string]string {
	types, labels := make(map[string]string), make(map[string][]string)
	for line := range strings.Lines(read(t, file)) {
		if f := strings.Fields(line); f[0] == "#" {
			if f[1] == "TYPE" {
				types[f[2]] = f[3]
			}
			continue
		}
		name, rest, _ := strings.Cut(line, "{")
		for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(rest, -1) {
			if l[1] != "fsid" && !slices.Contains(labels[name], l[1]) {
				labels[name] = append(labels[name], l[1])
			}
		}
	}
	var want []string
	for name, kind := range types {
		if l := labels[name]; len(l) > 0 {
			kind += ": " + strings.Join(l, ", ")
		}
		want = append(want, fmt.Sprintf("%s No (%s)", name, kind))
	}
	slices.Sort(want)
	page := read(t, "packaging/man", name)
	got := submatches(`(?m)^\.It Li (.*)$`, section(t, page, "METRICS"))
	if !slices.Equal(got, want) {
		t.Errorf("%s documents\n%s\nthe program writes\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// Other mentions of metrics.
	for _, name := range submatches(`(?m)\b(scoutfs_notify_[a-z_]+)`, page) {
		if types[name] == "" {
			t.Errorf("there is no metric %s", name)
		}
	}
	return types
}

// scoutfs-notifyd(8) documents the fields of state.json.
func TestState(t *testing.T) {
	want := jsonNames(reflect.TypeFor[notify.State](), "")
	slices.Sort(want)
	page := section(t, read(t, "packaging/man/scoutfs-notifyd.8"), "STATE")
	var got []string
	for _, names := range submatches(`(?m)^\.It Va (.*)$`, page) {
		got = append(got, strings.Split(names, " , ")...)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("scoutfs-notifyd(8) documents\n%s\nstate.json has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// scoutfs-notify-tail(1) documents the fields of tail -json's objects that are not those of a
// record.
func TestControlObjects(t *testing.T) {
	page := section(t, read(t, "packaging/man/scoutfs-notify-tail.1"), "DESCRIPTION")
	got := submatches(`\bDq ([a-z_]+)`, page)
	for _, typ := range []reflect.Type{
		reflect.TypeFor[notify.Hello](), reflect.TypeFor[notify.Lost](), reflect.TypeFor[notify.Idle](), reflect.TypeFor[notify.End](),
	} {
		var names []string
		for i := range typ.NumField() {
			names = append(names, typ.Field(i).Tag.Get("json"))
		}
		for _, name := range append(names, strings.ToLower(typ.Name())) {
			if !slices.Contains(got, name) {
				t.Errorf("scoutfs-notify-tail(1) lacks %q of %v", name, typ)
			}
		}
	}
}

// scoutfs-notify(5) has the structs and the constants of the C header, whose own test
// compares it with the code.
func TestProtocol(t *testing.T) {
	header := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(read(t, "packaging/include/scoutfs/notify_socket.h"), "")
	page := section(t, read(t, "packaging/man/scoutfs-notify.5"), "DESCRIPTION")
	_, page, _ = strings.Cut(page, "\n.Ss Version 2\n")
	page, _, _ = strings.Cut(page, "\n.Ss ")
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\.It ([A-Za-z_]+) Ta (\d+) Ta (\d[0-9 *]*)?`).FindAllStringSubmatch(page, -1) {
		got = append(got, strings.TrimSpace(strings.Join(m[1:], " ")))
	}

	var want []string
	fields := regexp.MustCompile(`__u(\d+) (\w+)(?:\[(\w+)\])?;`)
	for i, def := range regexp.MustCompile(`(?s)struct scoutfs_notify_\w+ \{(.*?)\};`).FindAllStringSubmatch(header, -1) {
		offset := 0
		for _, f := range fields.FindAllStringSubmatch(def[1], -1) {
			bits, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			size, text := bits/8, strconv.Itoa(bits/8)
			switch f[3] {
			case "":
			case "SCOUTFS_NOTIFY_FILTER_MAX":
				size, text = 64*size, text+" * 64"
			default:
				n, err := strconv.Atoi(f[3])
				if err != nil {
					t.Fatal(err)
				}
				size *= n
				text = strconv.Itoa(size)
			}
			// The request's are all there, of control records those that they do not
			// share.
			if common := strings.HasPrefix(f[2], "reserved") || slices.Contains([]string{"time_ns", "type", "flags"}, f[2]); i == 0 || !common {
				want = append(want, fmt.Sprintf("%s %d %s", f[2], offset, text))
			}
			offset += size
		}
	}
	// The records' own types are in the headings of their tables.
	for _, name := range []string{"HELLO", "LOST", "IDLE", "END"} {
		value := submatches(`SCOUTFS_NOTIFY_`+name+` = (0x[0-9a-f]+)`, header)
		if heading := ".It Sy " + name + " Ta Sy offset Ta Sy bytes Ta Sy type " + strings.Join(value, ""); !strings.Contains(page, heading) {
			t.Errorf("scoutfs-notify(5) lacks %q", heading)
		}
	}
	for _, m := range regexp.MustCompile(`\bSCOUTFS_NOTIFY_(\w+) = (\d+)\b`).FindAllStringSubmatch(header, -1) {
		if name := strings.TrimPrefix(strings.TrimPrefix(m[1], "END_"), "LOST_"); !strings.HasPrefix(name, "VERSION_") {
			want = append(want, name+" "+m[2])
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("scoutfs-notify(5) has\n%s\nthe header\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// jsonNames returns the JSON names of a struct's fields, including nested ones.
func jsonNames(typ reflect.Type, prefix string) []string {
	var names []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		name = prefix + name
		switch {
		case f.Type.Kind() == reflect.Struct && !f.Type.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
			names = append(names, jsonNames(f.Type, name+".")...)
		case f.Type.Kind() == reflect.Slice:
			names = append(names, jsonNames(f.Type.Elem(), name+"[].")...)
		default:
			names = append(names, name)
		}
	}
	return names
}

// The daemon has the log lines that scoutfs-notifyd(8) documents.
func TestLogLines(t *testing.T) {
	sources, err := filepath.Glob(filepath.Join(root(t), "daemon/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range sources {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	page := section(t, read(t, "packaging/man/scoutfs-notifyd.8"), "MONITORING")
	n := 0
	for _, line := range submatches(`(?m)^\.It Li (.*)$`, page) {
		if strings.HasPrefix(line, "scoutfs_notify_") {
			continue
		}
		n++
		if line = strings.Trim(line, `"`); !strings.Contains(code.String(), strconv.Quote(line)) {
			t.Errorf("the daemon does not log %q", line)
		}
	}
	if n == 0 {
		t.Error("no log lines were found")
	}
}
