// SPDX-License-Identifier: GPL-2.0-only

package hotpath

import (
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// check compares two modules and prints what the hooks add.
func check(t *testing.T, patched, unpatched, read string) {
	t.Helper()
	r, err := Compare(t.Context(), patched, unpatched, read)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("while nobody is listening, a read runs these in addition to the %d instructions of %s:%s", r.Before, read, list(r.Read.Hot))
	t.Logf("and skips:%s", list(r.Read.Cold))
	t.Logf("while nobody is listening, an open runs all of %s, which the VFS calls:%s", OpenHook, list(r.Open))
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

func list(code []Instruction) string {
	var b strings.Builder
	for _, i := range code {
		b.WriteString("\n\t\t" + i.String())
	}
	return b.String()
}

func TestStandIn(t *testing.T) {
	for _, name := range vm.KernelNames() {
		t.Run(filepath.Base(name), func(t *testing.T) {
			m, err := standin.Build(t.Context(), vm.TestKernel(t, name))
			if err != nil {
				t.Fatal(err)
			}
			check(t, m.Patched, m.Unpatched, "testfs_read_iter")
		})
	}
}

func TestScoutFS(t *testing.T) {
	all, err := repo.Series()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Run(s.Version, func(t *testing.T) {
			patched, unpatched := vm.TestScoutFS(t, vm.TestKernel(t, vm.KernelNames()[0]), s)
			check(t, patched.Module, unpatched.Module, "scoutfs_file_read_iter")
		})
	}
}

// TestCheck checks that the check can fail.
func TestCheck(t *testing.T) {
	code := func(lines ...string) []Instruction {
		var c []Instruction
		for n, l := range lines {
			text, rest, _ := strings.Cut(l, ";")
			i := Instruction{Addr: string(rune('a' + n)), Text: strings.TrimSpace(text)}
			if name, ok := strings.CutPrefix(rest, "@"); ok {
				i.Reloc = name
			} else {
				i.Target = rest
			}
			c = append(c, i)
		}
		return c
	}
	before := code("push %rbx", "call <there>;@generic_file_read_iter", "pop %rbx", "ret")
	for name, c := range map[string]struct {
		after []Instruction
		want  string // part of the error
	}{
		"good": {code("push %rbx", "call <there>;@generic_file_read_iter",
			"mov 0x0(%rip),%edx;@"+Guard, "test %edx,%edx", "jne <there>;h",
			"pop %rbx", "ret", "call <there>;@__scoutfs_notify_read", "jmp <there>;f"), ""},
		"one instruction for load and test": {code("push %rbx", "call <there>;@generic_file_read_iter",
			"cmpl $0x0,0x0(%rip);@"+Guard, "jne <there>;g",
			"pop %rbx", "ret", "call <there>;@__scoutfs_notify_read", "jmp <there>;e"), ""},
		"a second load": {code("push %rbx", "call <there>;@generic_file_read_iter",
			"mov 0x8(%rdi),%rdi", "mov 0x0(%rip),%edx;@"+Guard, "test %edx,%edx", "jne <there>;i",
			"pop %rbx", "ret", "call <there>;@__scoutfs_notify_read", "jmp <there>;g"), "adds"},
		"a branch that is taken": {code("push %rbx", "call <there>;@generic_file_read_iter",
			"mov 0x0(%rip),%edx;@"+Guard, "test %edx,%edx", "je <there>;g",
			"call <there>;@__scoutfs_notify_read", "pop %rbx", "ret"), "only way"},
		"no test": {before, "is not tested"},
		"other code changed": {code("push %rbp", "call <there>;@generic_file_read_iter",
			"mov 0x0(%rip),%edx;@"+Guard, "test %edx,%edx", "jne <there>;h",
			"pop %rbx", "ret", "call <there>;@__scoutfs_notify_read", "jmp <there>;f"), "is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := Added(before, c.after)
			if err == nil {
				err = h.Check()
			}
			if c.want == "" && err != nil {
				t.Error(err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, should tell %q", err, c.want)
			}
		})
	}
}
