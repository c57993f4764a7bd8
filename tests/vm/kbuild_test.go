// SPDX-License-Identifier: GPL-2.0-only

package vm

import "testing"

// TestKbuildLine checks that no finding of sparse or gcc is taken for a step.
func TestKbuildLine(t *testing.T) {
	tests := []struct {
		line string
		own  bool
	}{
		{"", true},
		{"  CC [M]  /t/kmod/src/acl.o", true},
		{"  CHECK   /t/kmod/src/acl.c", true},
		{"make[1]: Entering directory '/k/build'", true},
		{"make CHECK=/t/kmod/src/sparse-filtered.sh C=1 CF=\"-D__CHECK_ENDIAN__\" SCOUTFS_GIT_DESCRIBE=x CONFIG_SCOUTFS_FS=m -C /k M=/t", true},
		{"warning: the compiler differs from the one used to build the kernel", true},
		{"  WARNING: Symbol version dump ./Module.symvers", true},
		{"           is missing; modules will have no dependencies and modversions.", true},
		{"WARNING: Symbol version dump \"Module.symvers\" is missing.", true},
		{"WARNING: modpost: \"kfree\" [/t/kmod/src/scoutfs.ko] undefined!", true},
		{"ERROR: modpost: \"kfree\" [/t/kmod/src/scoutfs.ko] undefined!", false},
		{"/t/kmod/src/.tmp_lock.o: warning: objtool: missing symbol for section .text.unlikely", true},
		{"/t/kmod/src/lock.o: warning: objtool: f()+0x1: unreachable instruction", false},
		{"/t/kmod/src/acl.c:73:45: warning: cast removes address space '__user' of expression", false},
		{"/t/kmod/src/acl.c:1:1: warning: unused variable", false},
		{"make[2]: *** [scripts/Makefile.build:291: acl.o] Error 1", false},
		{"WARNING: modpost: missing MODULE_LICENSE() in scoutfs.o", false},
		{"no raw types in exported headers, preface with __", false},
	}
	for _, tt := range tests {
		if kbuildLine.MatchString(tt.line) != tt.own {
			t.Errorf("%q: taken for kbuild's own: %v", tt.line, !tt.own)
		}
	}
}
