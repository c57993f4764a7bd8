// SPDX-License-Identifier: GPL-2.0-only

// Package internal checks rules of the programs that ship that .golangci.yml cannot express.
package internal

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	root   = ".."
	module = "git.anomalous.dev/alphacentri/scoutfs-notify"
)

// goFiles calls f for each Go file of the modules that ship.
func goFiles(t *testing.T, f func(dir string, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root {
			if name == filepath.Join(root, "tests") || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
		}
		if d.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		f(dir, fset, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRelay: the rest of the daemon does not depend on the relay.
func TestRelay(t *testing.T) {
	goFiles(t, func(dir string, fset *token.FileSet, file *ast.File) {
		name := filepath.Base(fset.Position(file.Pos()).Filename)
		if dir != "daemon" || name == "relay.go" || strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Name == "relay" {
				t.Errorf("%v: only relay.go may use the relay", fset.Position(id.Pos()))
			}
			return true
		})
	})
}

// TestFileNames: only package notify spells out the names of the daemon's files.
func TestFileNames(t *testing.T) {
	goFiles(t, func(dir string, fset *token.FileSet, file *ast.File) {
		if dir == "notify" || strings.HasSuffix(fset.Position(file.Pos()).Filename, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok {
				return true
			}
			for _, name := range []string{notify.StateName, notify.MetricsName, notify.LockName, notify.SocketName} {
				if strings.Contains(lit.Value, name) {
					t.Errorf("%v: use package notify's constant for %s", fset.Position(lit.Pos()), name)
				}
			}
			return true
		})
	})
}

// TestExports: the daemon is a program, not a library.
func TestExports(t *testing.T) {
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(root, "daemon", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	p, err := doc.NewFromFiles(fset, files, module+"/daemon")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Funcs) != 1 || p.Funcs[0].Name != "Main" || len(p.Types)+len(p.Consts)+len(p.Vars) > 0 {
		t.Errorf("the daemon exports more than Main: see go doc ./daemon")
	}
}

// TestPins: all modules take golang.org/x/sys in the same version.
func TestPins(t *testing.T) {
	pin := regexp.MustCompile(`golang\.org/x/sys (v\S+)`)
	programs, err := filepath.Glob(filepath.Join(root, "cmd/*/go.mod"))
	if err != nil || len(programs) == 0 {
		t.Fatalf("no modules in cmd/: %v", err)
	}
	var want string
	for _, name := range append([]string{filepath.Join(root, "go.mod"), filepath.Join(root, "tests/go.mod")}, programs...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m := pin.FindSubmatch(text)
		switch {
		case m == nil:
			t.Errorf("%s has no version of golang.org/x/sys", name)
		case want == "":
			want = string(m[1])
		case want != string(m[1]):
			t.Errorf("%s takes golang.org/x/sys %s, go.mod %s", name, m[1], want)
		}
	}
}

// TestLicences: what other programs import has a licence that lets them, and so has
// all that it imports of this module; the rest has the project's.
func TestLicences(t *testing.T) {
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".go" {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		want := "// SPDX-License-Identifier: GPL-2.0-only\n"
		free := slices.Contains([]string{"notify", "notify/notifytest", "internal/mountinfo", "internal/scoutfs"}, dir)
		if free {
			want = "// SPDX-License-Identifier: MIT OR GPL-2.0-only\n"
		}
		if !strings.HasPrefix(string(text), want) {
			t.Errorf("%s does not start with %s", name, want)
		}
		for _, m := range regexp.MustCompile(`(?m)^\t"`+module+`/(.*)"$`).FindAllStringSubmatch(string(text), -1) {
			if free && !strings.HasSuffix(name, "_test.go") && !slices.Contains([]string{"notify", "internal/mountinfo", "internal/scoutfs"}, m[1]) {
				t.Errorf("%s imports %s, which is under the GPL alone", name, m[1])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
