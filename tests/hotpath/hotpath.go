// SPDX-License-Identifier: GPL-2.0-only

// Package hotpath shows what the hooks add to an open and a read while nobody is
// listening, by comparing the machine code of a patched and an unpatched module.
package hotpath

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// Guard is the variable that the hooks test.
const Guard = "scoutfs_notify_readers"

// Instruction is one instruction of a function.
type Instruction struct {
	Addr   string // offset in hexadecimal
	Text   string // without addresses, so that two builds can be compared
	Target string // Addr it jumps to, "" for none
	Reloc  string // symbol it refers to, without the addend, "" for none
}

func (i Instruction) String() string {
	if i.Reloc != "" {
		return i.Text + "  <" + i.Reloc + ">"
	}
	return i.Text
}

// same says whether two instructions do the same.
func same(a, b Instruction) bool { return a.Text == b.Text && a.Reloc == b.Reloc }

func (i Instruction) mnemonic() string {
	m, _, _ := strings.Cut(i.Text, " ")
	return m
}

// branches says whether this is a conditional jump.
func (i Instruction) branches() bool {
	return strings.HasPrefix(i.mnemonic(), "j") && i.mnemonic() != "jmp"
}

// ends says whether execution never continues with the next instruction.
func (i Instruction) ends() bool {
	return i.mnemonic() == "jmp" || strings.HasPrefix(i.mnemonic(), "ret")
}

var (
	insnLine  = regexp.MustCompile(`^ *([0-9a-f]+):\t(.*)$`)
	relocLine = regexp.MustCompile(`^\t+([0-9a-f]+): R_X86_64_\w+\t([^-+]+)`)
	localRef  = regexp.MustCompile(`\b([0-9a-f]+) <[^>]*>`)
	comment   = regexp.MustCompile(`\s*#.*$`)
	spaces    = regexp.MustCompile(`\s+`)
)

// Disassemble returns the instructions of a function in an x86-64 object file,
// without padding.
func Disassemble(ctx context.Context, object, function string) ([]Instruction, error) {
	out, err := run.Output(ctx, "objdump", "-dr", "--no-show-raw-insn", "--section=.text",
		"--disassemble="+function, object)
	if err != nil {
		return nil, fmt.Errorf("disassemble %s of %s: %w", function, object, err)
	}
	var code []Instruction
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if m := relocLine.FindStringSubmatch(line); m != nil && len(code) > 0 {
			// objdump also prints the relocations of the functions before.
			if last := &code[len(code)-1]; within(m[1], last.Addr) {
				last.Reloc = m[2]
				last.Target = "" // only the linker knows
			}
			continue
		}
		m := insnLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		i := Instruction{Addr: m[1], Text: comment.ReplaceAllString(m[2], "")}
		if ref := localRef.FindStringSubmatch(i.Text); ref != nil {
			i.Target = ref[1]
		}
		i.Text = localRef.ReplaceAllString(i.Text, "<there>")
		i.Text = strings.TrimSpace(spaces.ReplaceAllString(i.Text, " "))
		if strings.HasPrefix(i.Text, "nop") || i.Text == "xchg %ax,%ax" || strings.Contains(i.Text, " nopw ") {
			continue
		}
		code = append(code, i)
	}
	if len(code) == 0 {
		return nil, fmt.Errorf("disassemble %s: no such function in %s", function, object)
	}
	return code, nil
}

// within says whether a relocation's address is within the instruction at addr.
func within(reloc, addr string) bool {
	r, err := strconv.ParseUint(reloc, 16, 64)
	a, err2 := strconv.ParseUint(addr, 16, 64)
	return err == nil && err2 == nil && r > a && r < a+15 // the length limit
}

// Hook is what a hook adds to a function.
type Hook struct {
	Hot  []Instruction // executed while nobody is listening
	Cold []Instruction // behind the branch
}

// OpenHook is the function that the series give to regular files as ->open.
const OpenHook = "scoutfs_notify_open"

// Report is what the hooks of a module add while nobody is listening.
type Report struct {
	Before int           // instructions of the read function without its hook
	Read   *Hook         // what the hook adds to it
	Open   []Instruction // what is executed of OpenHook; without the series there is no ->open
}

// Compare compares a read function in two modules, with and without its hook, and reads
// OpenHook of the first.
func Compare(ctx context.Context, patched, unpatched, read string) (*Report, error) {
	before, err := Disassemble(ctx, unpatched, read)
	if err != nil {
		return nil, err
	}
	after, err := Disassemble(ctx, patched, read)
	if err != nil {
		return nil, err
	}
	r := &Report{Before: len(before)}
	if r.Read, err = Added(before, after); err != nil {
		return nil, err
	}
	code, err := Disassemble(ctx, patched, OpenHook)
	if err != nil {
		return nil, err
	}
	r.Open, err = Guarded(code)
	return r, err
}

// Check returns an error unless each hook adds exactly one load, one test and one branch.
func (r *Report) Check() error {
	// Leave out what makes it a function that returns 0: the mark of where calls may go, the
	// call for tracing, which the kernel turns into a nop, and the return.
	open := &Hook{Hot: slices.DeleteFunc(slices.Clone(r.Open), func(i Instruction) bool {
		return i.Text == "endbr64" || i.Reloc == "__fentry__" || i.Text == "xor %eax,%eax" || i.ends()
	})}
	return errors.Join(r.Read.Check(), open.Check())
}

// ErrOther: the hook changes other code of the function, too.
var ErrOther = errors.New("the hook changes other code")

// Added compares a function with and without its hook. The error is
// [ErrOther] if the rest of the function differs.
func Added(before, after []Instruction) (*Hook, error) {
	hot, cold, err := split(after)
	if err != nil {
		return nil, err
	}
	added, removed := diff(before, hot)
	if len(removed) > 0 {
		return nil, fmt.Errorf("%w: %v is gone", ErrOther, removed)
	}
	return &Hook{Hot: added, Cold: cold}, nil
}

// Check returns an error unless the hook adds exactly one load, one test and one
// branch, not taken, while nobody is listening.
func (h *Hook) Check() error {
	kinds := make([]string, 0, len(h.Hot))
	for _, i := range h.Hot {
		switch {
		case i.mnemonic() == "mov" && i.Reloc == Guard:
			kinds = append(kinds, "load")
		case i.mnemonic() == "test":
			kinds = append(kinds, "test")
		case strings.HasPrefix(i.mnemonic(), "cmp") && i.Reloc == Guard:
			kinds = append(kinds, "load", "test") // in one instruction
		case i.branches():
			kinds = append(kinds, "branch")
		default:
			kinds = append(kinds, i.String())
		}
	}
	if got := strings.Join(kinds, ", "); got != "load, test, branch" {
		return fmt.Errorf("the hook adds %q to the hot path, not one load, one test and one branch", got)
	}
	return nil
}

// Guarded returns the part of a function that runs while nobody is listening, for a
// function that consists of the hook alone.
func Guarded(code []Instruction) ([]Instruction, error) {
	hot, _, err := split(code)
	return hot, err
}

// split separates what runs while nobody is listening from what is behind the guard.
func split(code []Instruction) (hot, cold []Instruction, err error) {
	guard, err := findGuard(code)
	if err != nil {
		return nil, nil, err
	}
	taken, err := behind(code, guard)
	if err != nil {
		return nil, nil, err
	}
	for n, i := range code {
		if taken[n] {
			cold = append(cold, i)
		} else {
			hot = append(hot, i)
		}
	}
	return hot, cold, nil
}

// findGuard returns the index of the branch that tests the guard.
func findGuard(code []Instruction) (int, error) {
	branch := -1
	for n, i := range code {
		if i.Reloc != Guard {
			continue
		}
		if branch >= 0 {
			return 0, fmt.Errorf("%s is tested more than once", Guard)
		}
		for branch = n; branch < len(code) && !code[branch].branches(); branch++ {
		}
	}
	if branch < 0 || branch == len(code) {
		return 0, fmt.Errorf("%s is not tested", Guard)
	}
	return branch, nil
}

// behind returns the indexes of what is reached only if the branch at an index is
// taken.
func behind(code []Instruction, branch int) (map[int]bool, error) {
	index := make(map[string]int)
	for n, i := range code {
		index[i.Addr] = n
	}
	target, ok := index[code[branch].Target]
	if !ok {
		return nil, fmt.Errorf("the branch %v leaves the function", code[branch])
	}
	taken, not := reach(code, index, target, branch), reach(code, index, 0, branch)
	if not[target] {
		return nil, fmt.Errorf("the branch %v is not the only way to the hook's slow path, which runs while nobody is listening", code[branch])
	}
	for n := range not {
		delete(taken, n)
	}
	return taken, nil
}

// reach returns the indexes of what is reached from start if the branch is not taken.
func reach(code []Instruction, index map[string]int, start, branch int) map[int]bool {
	seen := make(map[int]bool)
	for todo := []int{start}; len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n >= len(code) || seen[n] {
			continue
		}
		seen[n] = true
		if t, ok := index[code[n].Target]; ok && strings.HasPrefix(code[n].mnemonic(), "j") && n != branch {
			todo = append(todo, t)
		}
		if !code[n].ends() {
			todo = append(todo, n+1)
		}
	}
	return seen
}

// diff returns the smallest set of instructions to add to a and to remove from it to
// get b.
func diff(a, b []Instruction) (added, removed []Instruction) {
	// lcs[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	lcs := make([][]int, len(a)+1)
	for i := range lcs {
		lcs[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if same(a[i], b[j]) {
				lcs[i][j] = lcs[i+1][j+1] + 1
			} else {
				lcs[i][j] = max(lcs[i+1][j], lcs[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case same(a[i], b[j]):
			i, j = i+1, j+1
		case lcs[i+1][j] >= lcs[i][j+1]:
			removed = append(removed, a[i])
			i++
		default:
			added = append(added, b[j])
			j++
		}
	}
	return append(added, b[j:]...), append(removed, a[i:]...)
}
