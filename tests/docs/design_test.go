// SPDX-License-Identifier: GPL-2.0-only

package docs

import (
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

const module = "git.anomalous.dev/alphacentri/scoutfs-notify/"

// arrows are who uses whom: users -> used.
type arrows map[string]map[string]bool

func (a arrows) add(user, used string) {
	if user == used {
		return
	}
	if a[user] == nil {
		a[user] = map[string]bool{}
	}
	a[user][used] = true
}

// lines returns the arrows as docs/design.md draws them, sorted.
func (a arrows) lines() []string {
	var all []string
	for user, used := range a {
		for name := range used {
			all = append(all, user+" --> "+name)
		}
	}
	slices.Sort(all)
	return all
}

// circle returns names whose arrows run in a circle, nil if there is none.
func (a arrows) circle() []string {
	done := map[string]bool{}
	var visit func(path []string) []string
	visit = func(path []string) []string {
		name := path[len(path)-1]
		if i := slices.Index(path, name); i < len(path)-1 {
			return path[i:]
		}
		for _, used := range slices.Sorted(maps.Keys(a[name])) {
			if done[used] {
				continue
			}
			if found := visit(append(slices.Clone(path), used)); found != nil {
				return found
			}
		}
		done[name] = true
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if found := visit([]string{name}); found != nil {
			return found
		}
	}
	return nil
}

// load returns packages of the module in a folder of the repository.
func load(t *testing.T, mode packages.LoadMode, folder string, tests bool, pattern string) []*packages.Package {
	t.Helper()
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(), Mode: mode, Dir: filepath.Join(root(t), folder), Tests: tests,
	}, pattern)
	if err != nil {
		t.Fatal(err)
	}
	if packages.PrintErrors(loaded) > 0 {
		t.Fatalf("%s does not compile", folder)
	}
	return loaded
}

// imports returns which packages of the project those of modules use.
func imports(t *testing.T, tests bool, folders ...string) arrows {
	t.Helper()
	a := arrows{}
	// Of a package's tests and the program that runs them.
	variant := regexp.MustCompile(` \[.*|_test$|\.test$`)
	var loaded []*packages.Package
	for _, folder := range folders {
		loaded = append(loaded, load(t, packages.NeedName|packages.NeedImports, folder, tests, "./...")...)
	}
	for _, p := range loaded {
		user, ok := strings.CutPrefix(variant.ReplaceAllString(p.PkgPath, ""), module)
		for _, i := range p.Imports {
			used, own := strings.CutPrefix(variant.ReplaceAllString(i.PkgPath, ""), module)
			if ok && own {
				a.add(user, used)
			}
		}
	}
	return a
}

// uses returns which files of the daemon use what others declare.
func uses(t *testing.T) arrows {
	t.Helper()
	a := arrows{}
	for _, p := range load(t, packages.LoadSyntax, "", false, "./daemon") {
		file := func(at token.Pos) string { return filepath.Base(p.Fset.Position(at).Filename) }
		for id, obj := range p.TypesInfo.Uses {
			if obj.Pkg() == p.Types && obj.Pos().IsValid() {
				a.add(file(id.Pos()), file(obj.Pos()))
			}
		}
	}
	return a
}

// drawing returns the arrows that docs/design.md draws below a heading.
func drawing(t *testing.T, heading string) []string {
	t.Helper()
	_, part, ok := strings.Cut(read(t, "docs/design.md"), "\n"+heading+"\n")
	_, chart, ok2 := strings.Cut(part, "\n```mermaid\nflowchart TD\n")
	chart, _, ok3 := strings.Cut(chart, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("docs/design.md has no flowchart TD below %q", heading)
	}
	var all []string
	for line := range strings.Lines(chart) {
		user, used, ok := strings.Cut(strings.TrimSpace(line), " --> ")
		if !ok {
			t.Fatalf("%q is not an arrow", line)
		}
		for _, name := range strings.Split(used, " & ") {
			all = append(all, user+" --> "+name)
		}
	}
	slices.Sort(all)
	return all
}

// The drawings of docs/design.md are of the code as it is, and no arrow runs back up.
func TestDrawings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		heading string
		code    arrows
	}{
		{"### The packages that ship", imports(t, false, "", "cmd/scoutfs-notify", "cmd/scoutfs-notify-index")},
		{"### The packages that do not", imports(t, true, "tests")},
		{"### The daemon's files", uses(t)},
	} {
		t.Run(tt.heading, func(t *testing.T) {
			if c := tt.code.circle(); c != nil {
				t.Errorf("these use each other in a circle: %s", strings.Join(c, " --> "))
			}
			drawn, code := drawing(t, tt.heading), tt.code.lines()
			for _, l := range drawn {
				if !slices.Contains(code, l) {
					t.Errorf("docs/design.md draws %s, which is not in the code", l)
				}
			}
			for _, l := range code {
				if !slices.Contains(drawn, l) {
					t.Errorf("docs/design.md lacks %s", l)
				}
			}
		})
	}
}
