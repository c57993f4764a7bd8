// SPDX-License-Identifier: GPL-2.0-only

package names

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// fakeAccounts answers as look does.
func fakeAccounts(look func(ctx context.Context, database, key string) (entry, error)) *Accounts {
	a := NewAccounts()
	a.look = look
	return a
}

// This machine's own database has root.
func TestRoot(t *testing.T) {
	a := NewAccounts()
	if got := a.User(0); got != "root" {
		t.Errorf("user 0 is %q", got)
	}
	if got := a.Group(0); got != "root" {
		t.Errorf("group 0 is %q", got)
	}
	for key, want := range map[string]uint32{"root": 0, "7": 7, "4294967295": 1<<32 - 1} {
		if got, err := a.UserID(key); err != nil || got != want {
			t.Errorf("%s: %d, %v", key, got, err)
		}
	}
	for _, key := range []string{"", "4294967296", "no such user", "-1"} {
		if got, err := a.UserID(key); !errors.Is(err, errNoAccount) {
			t.Errorf("%q: %d, %v", key, got, err)
		}
	}
}

// What was answered is not asked again, whether there is such a user or not.
func TestAskOnce(t *testing.T) {
	asked := 0
	a := fakeAccounts(func(_ context.Context, database, key string) (entry, error) {
		asked++
		if key == "2" {
			return entry{}, errNoAccount
		}
		return entry{name: database + key}, nil
	})
	for range 3 {
		if u, g, n := a.User(1), a.Group(1), a.User(2); u != "passwd1" || g != "group1" || n != "" {
			t.Errorf("%q, %q, %q", u, g, n)
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
}

// A database that does not answer costs one wait, and its names come when it answers.
func TestSlowDatabase(t *testing.T) {
	answer := make(chan struct{})
	var asked atomic.Int32
	a := fakeAccounts(func(ctx context.Context, _, _ string) (entry, error) {
		asked.Add(1)
		<-answer
		return entry{name: "late"}, nil
	})
	start := time.Now()
	for range 1000 {
		if got := a.User(1); got != "" {
			t.Fatalf("%q", got)
		}
	}
	if took := time.Since(start); took > 500*patience {
		t.Errorf("1000 questions took %v", took)
	}
	for id := range uint32(2 * accountsAsked) {
		a.User(id)
	}
	for end := time.Now().Add(10 * time.Second); asked.Load() != accountsAsked; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("asked %d at once", asked.Load())
		}
	}
	close(answer)
	for end := time.Now().Add(10 * time.Second); a.User(1) != "late"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the answer does not show")
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n")
	f.Fuzz(func(t *testing.T, line string) {
		if e, err := parseEntry(line); err == nil && e.name == "" {
			t.Errorf("%q has no name", line)
		}
	})
}
