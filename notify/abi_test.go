// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"bytes"
	"encoding"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
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
		size := s.typ.Size()
		if s.typ == reflect.TypeFor[Record]() {
			size = RecordSize
		}
		fmt.Fprintf(&b, "struct %s: %d bytes\n", s.c, size)
		for i := range s.typ.NumField() {
			f := s.typ.Field(i)
			if f.Name == "Comm" {
				f.Offset = commOffset()
			}
			fmt.Fprintf(&b, "%s: %d at %d\n", cName(f.Name), f.Type.Size(), f.Offset)
		}
	}
	fmt.Fprintf(&b, "ioctl %#x\n", IoctlReadNotify)
	fmt.Fprintf(&b, "types %d %d\n", TypeOpen, TypeRead)
	fmt.Fprintf(&b, "ring %d\n", RingRecords)
	fmt.Fprintf(&b, "flags %d\n", FlagComm)
	return b.String()
}

// commOffset returns where a record's Comm is encoded.
func commOffset() uintptr {
	r := Record{Type: TypeOpen, Flags: FlagComm, Comm: Comm([]byte("0123456789abcdef"))}
	b, _ := r.MarshalBinary()
	return uintptr(bytes.Index(b, r.Comm[:]))
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
	printf("flags %d\n", SCOUTFS_NOTIFY_COMM);
	return 0;
}
`)

	return runProgram(t, cc, src.String(), "notify_ioctl.h", header, nil)
}

// runProgram compiles a program that includes a header and returns what it prints.
func runProgram(t *testing.T, cc, src, name, header string, stdin []byte, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	file, program := filepath.Join(dir, "abi.c"), filepath.Join(dir, "abi")
	for path, text := range map[string]string{file: src, filepath.Join(dir, name): header} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"-Wall", "-Wextra", "-Werror", "-pedantic", "-o", program, file}, flags...)
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s\n%s", err, out, src)
	}
	cmd := exec.Command(program)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return string(out)
}

// cStruct is a struct of notify_socket.h: what this package encodes, and the values that
// a C program must find in it. Members that are arrays have an index for each value.
type cStruct struct {
	name   string
	bytes  []byte
	values []cValue
}

type cValue struct {
	member string // or a constant
	want   uint64
}

// socketStructs have another value in each field.
func socketStructs(t *testing.T) []cStruct {
	t.Helper()
	ints := func(from uint32) (list []uint32) {
		for i := range uint32(FilterMax) {
			list = append(list, from+i)
		}
		return list
	}
	req := Request{
		Version: Version2, MaxRecords: 7, Probe: true, Idle: 12345 * time.Millisecond, Resume: Resume{RID: 0x1122334455667788, Seq: 0x2233445566778899},
		Filter: Filter{Types: []Type{TypeRead, 31}, UIDs: ints(1000)[:63], PIDs: ints(2000)[:62], SkipPIDs: true, SkipSelf: true},
	}
	for _, v := range ints(3000) {
		req.Filter.Inos = append(req.Filter.Inos, uint64(v)<<32)
	}
	pkt, err := req.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	ns := func(n int64) time.Time { return time.Unix(1700000000, n) }
	const base = 1700000000000000000
	encode := func(ev encoding.BinaryAppender) []byte {
		b, _ := ev.AppendBinary(nil)
		return b
	}
	hello := &Hello{Next: 1, Time: ns(2), FSID: 3, RID: 4, DaemonStart: ns(5), ReaderStart: ns(6), Device: Device{7, 8}, Version: 9}
	lost := &Lost{First: 1, Last: 2, Count: 3, Time: ns(4), Cause: LostQueue | LostAway, AtMost: true, Unknown: true}
	return []cStruct{
		{"request", pkt, []cValue{
			{"version", 2}, {"max_records", 7}, {"flags", requestProbe | requestSkipPIDs | requestSkipSelf}, {"idle_ms", 12345},
			{"types", 1<<TypeRead | 1<<31}, {"nr_uids", 63}, {"nr_pids", 62}, {"nr_inos", 64},
			{"resume_rid", 0x1122334455667788}, {"resume_seq", 0x2233445566778899}, {"reserved[0]", 0}, {"reserved[1]", 0},
			{"inos[0]", 3000 << 32}, {"inos[63]", 3063 << 32}, {"uids[0]", 1000}, {"uids[62]", 1062}, {"uids[63]", 0}, {"pids[0]", 2000}, {"pids[61]", 2061},
		}},
		{"hello", encode(hello), []cValue{
			{"next", 1}, {"time_ns", base + 2}, {"fsid", 3}, {"rid", 4}, {"daemon_start_ns", base + 5}, {"reader_start_ns", base + 6},
			{"dev_major", 7}, {"dev_minor", 8}, {"version", 9}, {"type", uint64(TypeHello)}, {"flags", 0},
		}},
		{"lost", encode(lost), []cValue{
			{"first", 1}, {"time_ns", base + 4}, {"last", 2}, {"count", 3}, {"reserved[0]", 0}, {"reserved[1]", 0}, {"reserved2[0]", 0}, {"reserved2[1]", 0},
			{"cause", 6}, {"type", uint64(TypeLost)}, {"flags", flagAtMost | flagUnknown},
		}},
		{"idle", encode(&Idle{Seq: 1, Time: ns(2)}), []cValue{
			{"seq", 1}, {"time_ns", base + 2}, {"reserved[0]", 0}, {"reserved[3]", 0}, {"reserved2[0]", 0}, {"reserved2[2]", 0}, {"type", uint64(TypeIdle)}, {"flags", 0},
		}},
		{"end", encode(&End{Seq: 1, Time: ns(2), Reason: EndProtocol}), []cValue{
			{"seq", 1}, {"time_ns", base + 2}, {"reserved[0]", 0}, {"reserved[3]", 0}, {"reserved2[0]", 0}, {"reserved2[1]", 0}, {"reason", 9}, {"type", uint64(TypeEnd)}, {"flags", 0},
		}},
	}
}

// socketConstants are those of notify_socket.h without their prefix.
var socketConstants = []cValue{
	{"VERSION_1", Version1}, {"VERSION_2", Version2}, {"FILTER_MAX", FilterMax},
	{"PROBE", requestProbe}, {"SKIP_TYPES", requestSkipTypes}, {"SKIP_UIDS", requestSkipUIDs}, {"SKIP_PIDS", requestSkipPIDs}, {"SKIP_SELF", requestSkipSelf},
	{"CONTROL", 0x8000}, {"HELLO", uint64(TypeHello)}, {"LOST", uint64(TypeLost)}, {"IDLE", uint64(TypeIdle)}, {"END", uint64(TypeEnd)},
	{"LOST_KERNEL", uint64(LostKernel)}, {"LOST_QUEUE", uint64(LostQueue)}, {"LOST_AWAY", uint64(LostAway)}, {"LOST_UNATTENDED", uint64(LostUnattended)},
	{"AT_MOST", flagAtMost}, {"UNKNOWN", flagUnknown},
	{"END_UNMOUNTED", uint64(EndUnmounted)}, {"END_STOPPING", uint64(EndStopping)}, {"END_RESTARTING", uint64(EndRestarting)},
	{"END_FAILED", uint64(EndFailed)}, {"END_PROBE", uint64(EndProbe)}, {"END_MAX_CLIENTS", uint64(EndMaxClients)},
	{"END_CREDENTIALS", uint64(EndCredentials)}, {"END_RESOURCES", uint64(EndResources)}, {"END_PROTOCOL", uint64(EndProtocol)},
}

// TestSocketHeader has a C program read through notify_socket.h what this package sends,
// and compares the header's constants. The header has nothing besides.
func TestSocketHeader(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Fatalf("find a C compiler to check the layout: %v; on Debian: apt-get install gcc libc6-dev", err)
	}
	header, err := os.ReadFile("../packaging/include/scoutfs/notify_socket.h")
	if err != nil {
		t.Fatal(err)
	}
	var src, want strings.Builder
	var stdin []byte
	src.WriteString("#include \"notify_socket.h\"\n#include <stdio.h>\nint main(void)\n{\n")
	for _, s := range socketStructs(t) {
		stdin = append(stdin, s.bytes...)
		fmt.Fprintf(&src, "struct scoutfs_notify_%s %[1]s;\nif (fread(&%[1]s, sizeof(%[1]s), 1, stdin) != 1) return 1;\n", s.name)
		sizes := make(map[string]bool)
		for _, v := range s.values {
			fmt.Fprintf(&src, "printf(\"%s.%s %%llx\\n\", (unsigned long long)%[1]s.%[2]s);\n", s.name, v.member)
			fmt.Fprintf(&want, "%s.%s %x\n", s.name, v.member, v.want)
			member, _, _ := strings.Cut(v.member, "[")
			sizes["sizeof("+s.name+"."+member+")"] = true
		}
		// Without holes, and without members that are not compared.
		fmt.Fprintf(&src, "printf(\"%s %%d\\n\", (int)(%s));\n", s.name, strings.Join(slices.Sorted(maps.Keys(sizes)), "+"))
		fmt.Fprintf(&want, "%s %d\n", s.name, len(s.bytes))
	}
	known := []string{"_SCOUTFS_NOTIFY_SOCKET_H_"}
	for _, c := range socketConstants {
		fmt.Fprintf(&src, "printf(\"%s %%x\\n\", (unsigned)SCOUTFS_NOTIFY_%[1]s);\n", c.member)
		fmt.Fprintf(&want, "%s %x\n", c.member, c.want)
		known = append(known, "SCOUTFS_NOTIFY_"+c.member)
	}
	src.WriteString("return getchar() == EOF ? 0 : 2;\n}\n")
	for _, std := range []string{"-std=c99", "-std=gnu17"} {
		if got := runProgram(t, cc, src.String(), "notify_socket.h", string(header), stdin, std); got != want.String() {
			t.Errorf("%s: the C program says\n%s\nthis package\n%s", std, got, &want)
		}
	}
	comments := regexp.MustCompile(`(?s)/\*.*?\*/`)
	for _, name := range regexp.MustCompile(`\b_?SCOUTFS_[A-Z0-9_]+`).FindAllString(comments.ReplaceAllString(string(header), ""), -1) {
		if !slices.Contains(known, name) {
			t.Errorf("%s is not compared", name)
		}
	}
}

// TestSocketHeaderAlone: the header compiles by itself, for old compilers and for C++.
func TestSocketHeaderAlone(t *testing.T) {
	for _, argv := range [][]string{{"cc", "-std=c90", "-x", "c"}, {"c++", "-std=c++98", "-x", "c++"}} {
		t.Run(argv[0], func(t *testing.T) {
			cc, err := exec.LookPath(argv[0])
			if err != nil {
				t.Skipf("skipped: there is no %s; on Debian: apt-get install g++", argv[0])
			}
			args := append(argv[1:], "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wpadded", "-fsyntax-only", "../packaging/include/scoutfs/notify_socket.h")
			if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
