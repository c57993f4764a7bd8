// SPDX-License-Identifier: GPL-2.0-only

package names

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long the answer of the user database is believed, how long it may take, and how
// many questions may be under way.
const (
	accountTime    = 10 * time.Minute
	accountTimeout = 5 * time.Second
	accountsAsked  = 8

	// maxAccounts bounds how many are kept.
	maxAccounts = 1 << 16
)

// Accounts finds the names of users and groups, and their numbers: in the files below
// /etc, and by getent(1) in whatever else nsswitch.conf(5) names. Its methods are safe for
// concurrent use.
type Accounts struct {
	// look returns an entry of a database, passwd or group, by its number or name.
	look func(ctx context.Context, database, key string) (entry, error)

	mu    sync.Mutex // guards what follows
	known map[account]answer
	asked int
	slow  time.Time // until then nobody waits: the database is
}

type account struct {
	database string
	id       uint32
}

type answer struct {
	name  string // "" if there is none
	until time.Time
	asked bool // no answer yet
}

type entry struct {
	name string
	id   uint32
}

// errNoAccount: no such user or group.
var errNoAccount = errors.New("there is none of that name")

// numeric is what getent(1) takes for a number, and cuts off to 32 bits.
var numeric = regexp.MustCompile(`^\s*[-+]?\d*$`)

// NewAccounts asks this machine's databases.
func NewAccounts() *Accounts {
	return &Accounts{look: lookUp, known: make(map[account]answer)}
}

// User returns a user's name; "" if there is none, or it was not found in time.
func (a *Accounts) User(uid uint32) string { return a.name(account{"passwd", uid}) }

// Group returns a group's name; "" if there is none, or it was not found in time.
func (a *Accounts) Group(gid uint32) string { return a.name(account{"group", gid}) }

// UserID returns the number of a user by name or number.
func (a *Accounts) UserID(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	if numeric.MatchString(name) {
		return 0, errNoAccount
	}
	ctx, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	e, err := a.look(ctx, "passwd", name)
	return e.id, err
}

func (a *Accounts) name(of account) string {
	a.mu.Lock()
	known, ok := a.known[of]
	if ok && (known.asked || time.Now().Before(known.until)) || a.asked == accountsAsked {
		a.mu.Unlock()
		return known.name
	}
	if len(a.known) >= maxAccounts {
		clear(a.known)
	}
	a.known[of] = answer{name: known.name, asked: true}
	a.asked++
	wait := patience
	if time.Now().Before(a.slow) {
		wait = 0
	}
	a.mu.Unlock()

	done := make(chan string, 1)
	go func() { done <- a.ask(of) }()
	select {
	case name := <-done:
		return name
	case <-time.After(wait):
		a.mu.Lock()
		defer a.mu.Unlock()
		a.slow = time.Now().Add(accountTimeout)
		return known.name
	}
}

func (a *Accounts) ask(of account) string {
	ctx, cancel := context.WithTimeout(context.Background(), accountTimeout)
	defer cancel()
	e, err := a.look(ctx, of.database, strconv.FormatUint(uint64(of.id), 10))
	known := answer{name: e.name, until: time.Now().Add(accountTime)}
	if err != nil && !errors.Is(err, errNoAccount) {
		known.until = time.Now().Add(retryTime)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[of] = known
	a.asked--
	return known.name
}

// lookUp asks this machine. A program without cgo has the files alone, so getent(1) is
// asked for what is not in them.
func lookUp(ctx context.Context, database, key string) (entry, error) {
	if e, ok := inFiles(database, key); ok {
		return e, nil
	}
	out, err := exec.CommandContext(ctx, "getent", "--", database, key).Output()
	var status *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return entry{}, errNoAccount
	case errors.As(err, &status) && status.ExitCode() == 2:
		return entry{}, errNoAccount
	case err != nil:
		return entry{}, fmt.Errorf("getent %s: %w", database, err)
	}
	return parseEntry(string(out))
}

// parseEntry parses a line of passwd(5) or group(5).
func parseEntry(line string) (entry, error) {
	fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
	if len(fields) < 3 || fields[0] == "" {
		return entry{}, fmt.Errorf("%q is not an entry of a user database", line)
	}
	id, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		return entry{}, fmt.Errorf("%q is not an entry of a user database", line)
	}
	return entry{fields[0], uint32(id)}, nil
}

// inFiles looks for an entry in /etc/passwd or /etc/group.
func inFiles(database, key string) (entry, bool) {
	text, err := os.ReadFile(filepath.Join("/etc", database))
	if err != nil {
		return entry{}, false
	}
	for line := range strings.Lines(string(text)) {
		e, err := parseEntry(line)
		if err == nil && (e.name == key || strconv.FormatUint(uint64(e.id), 10) == key) {
			return e, true
		}
	}
	return entry{}, false
}
