// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"errors"
	"flag"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// options has a flag of each kind.
type options struct {
	pause, every time.Duration
	rows, size   int
	count        uint64
	bytes        int64
	by           string
	users        []uint32
}

func newFlags() (*options, *flag.FlagSet) {
	o := &options{pause: time.Millisecond, every: time.Second, rows: 20, size: 1000, by: "inode"}
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Var(Duration(&o.pause, 0, time.Second), "pause", "wait for `duration`")
	flags.Var(Duration(&o.every, 10*time.Millisecond, math.MaxInt64), "every", "repeat after `duration`")
	flags.Var(Int(&o.rows, 1, math.MaxInt), "rows", "show `count` rows")
	flags.Var(Int(&o.size, 10, 2000), "size", "queue of `bytes`")
	flags.Var(Count(&o.count), "n", "end after `count`; 0 for never (the default)")
	flags.Var(Size(&o.bytes), "bytes", "start another file when it has `bytes`; 0 for never (the default)")
	flags.Var(Choice(&o.by, "inode", "user"), "by", "add up by `key`")
	flags.Var(List(&o.users, 3, Number[uint32]), "users", "only these `users`")
	return o, flags
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		arg  string
		want string // error, "" for none
	}{
		{"-pause=0s", ""},
		{"-pause=1s", ""},
		{"-pause=1", `invalid value "1" for flag -pause: a duration is a number with a unit, such as 500us or 2s`},
		{"-pause=2s", `invalid value "2s" for flag -pause: out of range: 0s to 1s`},
		{"-pause=-1ms", `invalid value "-1ms" for flag -pause: out of range: 0s to 1s`},
		{"-every=10ms", ""},
		{"-every=9ms", `invalid value "9ms" for flag -every: out of range: 10ms or more`},
		{"-rows=0x10", ""},
		{"-rows=0", `invalid value "0" for flag -rows: out of range: 1 or more`},
		{"-rows=many", `invalid value "many" for flag -rows: not a whole number in range`},
		{"-rows=9223372036854775808", `invalid value "9223372036854775808" for flag -rows: not a whole number in range`},
		{"-size=2001", `invalid value "2001" for flag -size: out of range: 10 to 2000`},
		{"-n=18446744073709551615", ""},
		{"-n=-1", `invalid value "-1" for flag -n: not a whole number, 0 or more`},
		{"-bytes=8388607T", ""},
		{"-bytes=10K", ""},
		{"-bytes=8388608T", `invalid value "8388608T" for flag -bytes: a size is a number of bytes, such as 1048576, 500M or 10G`},
		{"-bytes=K", `invalid value "K" for flag -bytes: a size is a number of bytes, such as 1048576, 500M or 10G`},
		{"-bytes=", `invalid value "" for flag -bytes: a size is a number of bytes, such as 1048576, 500M or 10G`},
		{"-bytes=-1", `invalid value "-1" for flag -bytes: a size is a number of bytes, such as 1048576, 500M or 10G`},
		{"-by=user", ""},
		{"-users=0,4294967295", ""},
		{"-users=4294967296", `invalid value "4294967296" for flag -users: "4294967296" is not a whole number from 0 to 4294967295`},
		{"-users=1,,2", `invalid value "1,,2" for flag -users: "" is not a whole number from 0 to 4294967295`},
		{"-users=1,2,3,4", `invalid value "1,2,3,4" for flag -users: more than 3 entries`},
		{"-by=x", `invalid value "x" for flag -by: not one of inode, user`},
	} {
		o, flags := newFlags()
		before := *o
		err := flags.Parse([]string{tt.arg})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.arg, got, tt.want)
		}
		if reflect.DeepEqual(*o, before) != (tt.want != "") {
			t.Errorf("%s: set to %+v", tt.arg, *o)
		}
	}
}

// A flag that is given again adds to its list, or leaves it as it is.
func TestList(t *testing.T) {
	o, flags := newFlags()
	if err := flags.Parse([]string{"-users=7", "-users=8,9"}); err != nil || !slices.Equal(o.users, []uint32{7, 8, 9}) {
		t.Errorf("%v, %v", o.users, err)
	}
	if err := flags.Parse([]string{"-users=10"}); err == nil || !slices.Equal(o.users, []uint32{7, 8, 9}) {
		t.Errorf("%v, %v", o.users, err)
	}
}

// FuzzList: what is accepted is what strconv makes of the parts, and no part is left out.
func FuzzList(f *testing.F) {
	f.Add("1,2")
	f.Add("1,,18446744073709551616")
	f.Fuzz(func(t *testing.T, s string) {
		var small []uint32
		var large []uint64
		err32, err64 := List(&small, 3, Number[uint32]).Set(s), List(&large, 3, Number[uint64]).Set(s)
		if n := strings.Count(s, ",") + 1; err64 == nil && (len(large) != n || n > 3) || err64 != nil && len(large) != 0 {
			t.Errorf("%q: %d, %v", s, large, err64)
		}
		if err32 == nil && err64 != nil || err32 == nil && !slices.EqualFunc(small, large, func(a uint32, b uint64) bool { return uint64(a) == b }) {
			t.Errorf("%q: %d and %d, %v", s, small, large, err64)
		}
	})
}

// The help text has defaults and names of values, like those of package flag's types.
func TestHelp(t *testing.T) {
	_, flags := newFlags()
	var b strings.Builder
	flags.SetOutput(&b)
	if err := flags.Parse([]string{"-help"}); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	want := `Usage of test:
  -by key
    	add up by key (default inode)
  -bytes bytes
    	start another file when it has bytes; 0 for never (the default)
  -every duration
    	repeat after duration (default 1s)
  -n count
    	end after count; 0 for never (the default)
  -pause duration
    	wait for duration (default 1ms)
  -rows count
    	show count rows (default 20)
  -size bytes
    	queue of bytes (default 1000)
  -users users
    	only these users
`
	if b.String() != want {
		t.Errorf("got\n%s", &b)
	}
}

func TestMountPoint(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
		err  string
	}{
		{[]string{"/mnt"}, "/mnt", ""},
		{nil, "", "a mount point is missing"},
		{[]string{""}, "", "the mount point is an empty string"},
		{[]string{"a", "b"}, "", "expected one mount point, got 2 arguments"},
		{[]string{"a", "-v"}, "", "expected one mount point, got 2 arguments: flags come before the mount point"},
	} {
		_, flags := newFlags()
		if err := flags.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		got, err := MountPoint(flags.Args())
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%q: %q, %v", tt.args, got, err)
		}
	}
}

func TestVersion(t *testing.T) {
	if got := Version("1.2"); got != "1.2" {
		t.Error(got)
	}
	if Version("") == "" {
		t.Error("no version without the linker's")
	}
}
