// SPDX-License-Identifier: GPL-2.0-only

package notify

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

// TestHeader compares this package's layouts and numbers with those that a C compiler
// gets from notify_ioctl.h, for every series in patches/.
func TestHeader(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Fatalf("find a C compiler to check the layout: %v; on Debian: apt-get install gcc libc6-dev", err)
	}
	all, err := series.Select("../patches")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Run(s.Version, func(t *testing.T) {
			if got, want := runHeaderProgram(t, cc, s.Header()), wantHeader(); got != want {
				t.Errorf("the C header says\n%s\nthis package\n%s", got, want)
			}
		})
	}
}

// wantHeader describes this package in the format in which runHeaderProgram describes
// the header.
func wantHeader() string {
	var b strings.Builder
	for _, s := range headerStructs {
		fmt.Fprintf(&b, "struct %s: %d bytes\n", s.c, s.typ.Size())
		for i := range s.typ.NumField() {
			f := s.typ.Field(i)
			fmt.Fprintf(&b, "%s: %d at %d\n", cName(f.Name), f.Type.Size(), f.Offset)
		}
	}
	fmt.Fprintf(&b, "ioctl %#x\n", IoctlReadNotify)
	fmt.Fprintf(&b, "types %d %d\n", TypeOpen, TypeRead)
	fmt.Fprintf(&b, "ring %d\n", RingRecords)
	return b.String()
}

var headerStructs = []struct {
	c   string
	typ reflect.Type
}{
	{"scoutfs_notify_record", reflect.TypeFor[Record]()},
	{"scoutfs_ioctl_read_notify", reflect.TypeFor[readNotifyArgs]()},
}

// cName returns the C name of a Go field: open_flags for OpenFlags, time_ns for TimeNS.
func cName(field string) string {
	var b strings.Builder
	upper := true
	for _, c := range field {
		if unicode.IsUpper(c) && !upper {
			b.WriteByte('_')
		}
		upper = unicode.IsUpper(c)
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// runHeaderProgram compiles and runs a program that describes the header.
func runHeaderProgram(t *testing.T, cc, header string) string {
	t.Helper()
	var src bytes.Buffer
	src.WriteString("#include \"notify_ioctl.h\"\n#include <stddef.h>\n#include <stdio.h>\nint main(void)\n{\n")
	for _, s := range headerStructs {
		fmt.Fprintf(&src, "\tstruct %s v_%[1]s;\n", s.c)
		fmt.Fprintf(&src, "\tprintf(\"struct %s: %%zu bytes\\n\", sizeof(v_%[1]s));\n", s.c)
		for i := range s.typ.NumField() {
			f := cName(s.typ.Field(i).Name)
			fmt.Fprintf(&src, "\tprintf(\"%s: %%zu at %%zu\\n\", sizeof(v_%s.%[1]s), offsetof(struct %[2]s, %[1]s));\n", f, s.c)
		}
	}
	src.WriteString(`	printf("ioctl %#lx\n", (unsigned long)SCOUTFS_IOC_READ_NOTIFY);
	printf("types %d %d\n", SCOUTFS_NOTIFY_OPEN, SCOUTFS_NOTIFY_READ);
	printf("ring %d\n", SCOUTFS_NOTIFY_RING_RECORDS);
	return 0;
}
`)

	dir := t.TempDir()
	file, program := filepath.Join(dir, "abi.c"), filepath.Join(dir, "abi")
	for name, text := range map[string][]byte{file: src.Bytes(), filepath.Join(dir, "notify_ioctl.h"): []byte(header)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(cc, "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", program, file).CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s\n%s", err, out, &src)
	}
	out, err := exec.Command(program).Output()
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return string(out)
}
