// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// coldQuery is what cold is asked.
type coldQuery struct {
	stores
	older   moment
	certain bool
	by      string
	depth   int
	nul     bool
	json    bool
	paths   bool
	mount   string
}

const coldAbout = `Lists the regular files that were neither read nor opened for the time of -older,
and not written. Says on standard error what it does not know: files that were
accessed in a gap of the observation are listed, too, without -certain.
`

func runCold(ctx context.Context, env *environment, args []string) error {
	q := coldQuery{depth: 1}
	flags := flag.NewFlagSet("cold", flag.ContinueOnError)
	q.flags(flags)
	flags.Var(&q.older, "older", "list files without an access for this `time`, such as 90d, 12w or 36h, or since then, such as 2026-11-27T00:00:00Z")
	flags.BoolVar(&q.certain, "certain", false, "list a file only if it is proven that there was none: nothing, if anything was missed in that time")
	flags.Var(cli.Choice(&q.by, "user", "project", "directory"), "by", "add files and bytes up by `what` instead: user, project or directory")
	flags.Var(cli.Int(&q.depth, 1, 100), "depth", "with -by directory: folders up to `count` levels deep")
	flags.BoolVar(&q.paths, "paths", false, "print a path of each file, too")
	flags.BoolVar(&q.nul, "0", false, "print paths alone, each with a NUL at its end, as xargs -0 takes them")
	flags.BoolVar(&q.json, "json", false, "print JSON Lines")
	rest, err := env.program.Parse(flags, "MOUNT", coldAbout, args)
	if err != nil {
		return err
	}
	if q.mount, err = cli.MountPoint(rest); err != nil {
		return cli.Usagef("cold", "%w", err)
	}
	switch {
	case q.older == (moment{}):
		return cli.Usagef("cold", "-older is missing, such as -older 90d")
	case q.nul && (q.json || q.by != ""), q.by != "" && q.paths:
		return cli.Usagef("cold", "-0, -json, -paths and -by do not go together like that")
	}
	return q.run(ctx, env)
}

func (q *coldQuery) run(ctx context.Context, env *environment) error {
	views, err := q.open(ctx, env, q.mount)
	if err != nil {
		return err
	}
	defer closeViews(views)
	now := index.MillisOf(env.now())
	cutoff := index.MillisOf(q.older.time(env.now()))
	certain := tellDoubts(env, views, cutoff, now)
	if q.certain && !certain {
		fmt.Fprintln(env.stderr, "scoutfs-notify-index: nothing is certain about that time, so nothing is listed")
		return nil
	}
	m, err := env.open(q.mount)
	if err != nil {
		return err
	}
	defer m.Close()

	out := bufio.NewWriterSize(env.stdout, 1<<16)
	var each func(e *index.Entry, seen bool) error
	var sums summary
	switch {
	case q.by != "":
		sums = summary{}
		each = func(e *index.Entry, _ bool) error { return sums.add(q, m, e.Ino) }
	default:
		each = q.printer(out, m, env, certain)
	}
	progress := startProgress(env.stderr)
	defer progress.end()
	listed, gone := 0, 0
	files, err := index.Cold(views, cutoff, func(seq uint64, f func(uint64)) error {
		return m.Walk(seq, func(ino uint64) {
			progress.count("files looked at")
			f(ino)
		})
	}, func(e *index.Entry, seen bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		progress.count("cold files")
		err := each(e, seen)
		if errors.Is(err, os.ErrNotExist) {
			gone++ // deleted since
			return nil
		}
		listed++
		return err
	})
	progress.end()
	if err != nil {
		return errors.Join(err, out.Flush())
	}
	if q.by != "" {
		err = sums.print(q, out)
	}
	fmt.Fprintf(env.stderr, "scoutfs-notify-index: %d of %d files that were last written before %v are cold, %d were deleted meanwhile\n", listed, files, cutoff, gone)
	return errors.Join(err, out.Flush())
}

// tellDoubts says on standard error what some stores do not know, and returns whether
// they know everything.
func tellDoubts(env *environment, views []*index.View, cutoff, now index.Millis) bool {
	certain := true
	for _, d := range index.Doubts(views, cutoff, now) {
		fmt.Fprintf(env.stderr, "scoutfs-notify-index: %s\n", cli.Printable(d.String()))
		certain = certain && d.Certain()
	}
	return certain
}

// object is a line of -json.
type object struct {
	Ino     uint64      `json:"ino"`
	Path    string      `json:"path,omitempty"`
	Last    *time.Time  `json:"last"` // null: not while observed
	Type    notify.Type `json:"type,omitempty"`
	UID     *uint32     `json:"uid,omitempty"`
	GID     *uint32     `json:"gid,omitempty"`
	PID     *uint32     `json:"pid,omitempty"`
	Opens   uint64      `json:"opens"`
	Reads   uint64      `json:"reads"`
	Bytes   uint64      `json:"bytes"`
	Certain bool        `json:"certain"`
}

func objectOf(e *index.Entry, seen bool, path string, certain bool) *object {
	o := &object{Ino: e.Ino, Path: path, Opens: e.Opens, Reads: e.Reads, Bytes: e.Bytes, Certain: certain}
	if seen {
		last := e.Last.Time()
		o.Last, o.Type, o.UID, o.GID, o.PID = &last, e.Type, &e.UID, &e.GID, &e.PID
	}
	return o
}

// printer returns what prints one file.
func (q *coldQuery) printer(out *bufio.Writer, m mounted, env *environment, certain bool) func(*index.Entry, bool) error {
	root := mountPoint(q.mount)
	enc := json.NewEncoder(out)
	return func(e *index.Entry, seen bool) error {
		path := ""
		if q.paths || q.nul {
			p, err := m.Path(e.Ino)
			if err != nil {
				return err
			}
			path = filepath.Join(root, p)
		}
		switch {
		case q.nul:
			out.WriteString(path)
			return out.WriteByte(0)
		case q.json:
			return enc.Encode(objectOf(e, seen, strings.ToValidUTF8(path, "\uFFFD"), certain))
		}
		last := "not while observed  "
		if seen {
			last = e.Last.String()
		}
		fmt.Fprintf(out, "%s ino %d", last, e.Ino)
		if seen {
			fmt.Fprintf(out, " by uid %d", e.UID)
		}
		if path != "" {
			fmt.Fprintf(out, " %s", cli.Printable(path))
		}
		return out.WriteByte('\n')
	}
}

// mountPoint returns where the file system is mounted that a path is on.
func mountPoint(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if m, err := notify.MountOf(abs); err == nil {
		return m.Path
	}
	return abs
}

// summary adds up files and bytes.
type summary map[string]*total

type total struct {
	Name  string `json:"name"`
	Files uint64 `json:"files"`
	Bytes int64  `json:"bytes"` // of their sizes
}

func (s summary) add(q *coldQuery, m mounted, ino uint64) error {
	uid, bytes, err := m.Owner(ino)
	if err != nil {
		return err
	}
	name := ""
	switch q.by {
	case "user":
		name = fmt.Sprint(uid)
	case "project":
		p, err := m.Project(ino)
		if err != nil {
			return err
		}
		name = fmt.Sprint(p)
	case "directory":
		p, err := m.Path(ino)
		if err != nil {
			return err
		}
		parts := strings.Split(filepath.Dir(p), "/")
		name = filepath.Join(mountPoint(q.mount), filepath.Join(parts[:min(q.depth, len(parts))]...))
	}
	t := s[name]
	if t == nil {
		t = &total{Name: name}
		s[name] = t
	}
	t.Files++
	t.Bytes += bytes
	return nil
}

// print prints the sums, the most bytes first.
func (s summary) print(q *coldQuery, out *bufio.Writer) error {
	var all []*total
	for _, t := range s {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *total) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name))
	})
	if q.json {
		enc := json.NewEncoder(out)
		for _, t := range all {
			t.Name = strings.ToValidUTF8(t.Name, "\uFFFD")
			if err := enc.Encode(t); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Fprintf(out, "%12s %18s  %s\n", "files", "bytes", q.by)
	for _, t := range all {
		fmt.Fprintf(out, "%12d %18d  %s\n", t.Files, t.Bytes, cli.Printable(t.Name))
	}
	return nil
}
