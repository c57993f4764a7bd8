// SPDX-License-Identifier: GPL-2.0-only

// Package cli is what the command lines of scoutfs-notifyd, scoutfs-notify and
// scoutfs-notify-index have in common.
//
// Its flag values say in their errors what they take, where those of package flag
// say "parse error".
package cli

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Version returns the version that the linker was given, or else the module's.
func Version(linked string) string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// MountPoint returns the only one of some arguments.
func MountPoint(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return "", errors.New("a mount point is missing")
	case len(args) > 1 && slices.ContainsFunc(args, IsFlag):
		return "", fmt.Errorf("expected one mount point, got %d arguments: flags come before the mount point", len(args))
	case len(args) > 1:
		return "", fmt.Errorf("expected one mount point, got %d arguments", len(args))
	case args[0] == "":
		return "", errors.New("the mount point is an empty string")
	default:
		return args[0], nil
	}
}

// IsFlag tells whether an argument looks like a flag.
func IsFlag(arg string) bool { return strings.HasPrefix(arg, "-") }

// Duration returns a flag's value for a duration from least to most. What is at p
// is the default. A most of [math.MaxInt64] is no limit.
func Duration(p *time.Duration, least, most time.Duration) flag.Value {
	return &value[time.Duration]{p, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, errors.New("a duration is a number with a unit, such as 500us or 2s")
		}
		return d, checkRange(d, least, most, math.MaxInt64)
	}}
}

// Int returns a flag's value for a whole number from least to most. What is at p
// is the default. A most of [math.MaxInt] is no limit.
func Int(p *int, least, most int) flag.Value {
	return &value[int]{p, func(s string) (int, error) {
		n, err := strconv.ParseInt(s, 0, strconv.IntSize)
		if err != nil {
			return 0, errors.New("not a whole number in range")
		}
		return int(n), checkRange(int(n), least, most, math.MaxInt)
	}}
}

// Size returns a flag's value for a number of bytes, which may end in K, M, G or T for
// powers of 1024. What is at p is the default.
func Size(p *int64) flag.Value {
	return &value[int64]{p, func(s string) (int64, error) {
		digits, shift := s, 0
		if n := len(s); n > 0 {
			if i := strings.IndexByte("KMGT", s[n-1]); i >= 0 {
				digits, shift = s[:n-1], 10*(i+1)
			}
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n > math.MaxInt64>>shift {
			return 0, errors.New("a size is a number of bytes, such as 1048576, 500M or 10G")
		}
		return int64(n << shift), nil
	}}
}

// Count returns a flag's value for a number of things, 0 or more. What is at p is
// the default.
func Count(p *uint64) flag.Value {
	return &value[uint64]{p, func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return 0, errors.New("not a whole number, 0 or more")
		}
		return n, nil
	}}
}

// Choice returns a flag's value for one of some words. What is at p is the default.
func Choice(p *string, words ...string) flag.Value {
	return &choice{value[string]{p, func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("not one of %s", strings.Join(words, ", "))
		}
		return s, nil
	}}, words}
}

// choice is a flag.Value that is one of some words.
type choice struct {
	value[string]
	words []string
}

// List returns a flag's value for a list with commas between its entries, at most that
// many. Each use of the flag adds to the list at p.
func List[T any](p *[]T, most int, parse func(string) (T, error)) flag.Value {
	return &value[[]T]{p, func(s string) ([]T, error) {
		list := slices.Clone(*p)
		for word := range strings.SplitSeq(s, ",") {
			v, err := parse(word)
			if err != nil {
				return nil, fmt.Errorf("%q is %w", word, err)
			}
			list = append(list, v)
		}
		if len(list) > most {
			return nil, fmt.Errorf("more than %d entries", most)
		}
		return list, nil
	}}
}

// Number parses a whole number of up to some bits, as an entry of a List.
func Number[T uint32 | uint64](s string) (T, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if v := T(n); err == nil && uint64(v) == n {
		return v, nil
	}
	return 0, fmt.Errorf("not a whole number from 0 to %d", ^T(0))
}

// value is a flag.Value.
type value[T any] struct {
	p     *T
	parse func(string) (T, error)
}

// String is called for the zero value, too, which tells package flag of which
// default to say nothing.
func (v *value[T]) String() string {
	if v.p == nil {
		return fmt.Sprint(*new(T))
	}
	return fmt.Sprint(*v.p)
}

func (v *value[T]) Set(s string) error {
	x, err := v.parse(s)
	if err == nil {
		*v.p = x
	}
	return err
}

func checkRange[T cmp.Ordered](v, least, most, unlimited T) error {
	switch {
	case v >= least && v <= most:
		return nil
	case most == unlimited:
		return fmt.Errorf("out of range: %v or more", least)
	default:
		return fmt.Errorf("out of range: %v to %v", least, most)
	}
}
