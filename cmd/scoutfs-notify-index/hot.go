// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
)

const hotAbout = `Lists the files that were accessed most in the time of -last, most first. Counts
are kept by hour, and later by day: the list says from when on it counts.
`

// hotQuery is what hot is asked.
type hotQuery struct {
	stores
	last  age
	n     int
	share float64 // of the files that were accessed, above 0 instead of n
	sort  string
	paths bool
	json  bool
	mount string
}

// amounts are what files can be hot by.
var amounts = map[string]func(*index.Entry) uint64{
	"bytes": func(e *index.Entry) uint64 { return e.Bytes },
	"reads": func(e *index.Entry) uint64 { return e.Reads },
	"opens": func(e *index.Entry) uint64 { return e.Opens },
}

func runHot(ctx context.Context, env *environment, args []string) error {
	q := hotQuery{last: age(24 * time.Hour), n: 20, sort: "bytes"}
	flags := flag.NewFlagSet("hot", flag.ContinueOnError)
	q.flags(flags)
	flags.Var(&q.last, "last", "count the accesses of this `time`, such as 24h or 7d")
	flags.Var(cli.Int(&q.n, 1, math.MaxInt), "n", "list `count` files")
	flags.Func("share", "list this `part` of the files that were accessed, such as 10%, instead of -n", func(s string) error {
		p, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
		if err != nil || !strings.HasSuffix(s, "%") || !(p > 0 && p <= 100) {
			return errors.New("not a percentage above 0% and up to 100%")
		}
		q.share = p / 100
		return nil
	})
	flags.Var(cli.Choice(&q.sort, "bytes", "reads", "opens"), "sort", "by `what` files are hot: bytes or reads or opens")
	flags.BoolVar(&q.paths, "paths", false, "print a path of each file, too")
	flags.BoolVar(&q.json, "json", false, "print JSON Lines")
	rest, err := env.program.Parse(flags, "MOUNT", hotAbout, args)
	if err != nil {
		return err
	}
	if q.mount, err = cli.MountPoint(rest); err != nil {
		return cli.Usagef("hot", "%w", err)
	}
	return q.run(ctx, env)
}

func (q *hotQuery) run(ctx context.Context, env *environment) error {
	views, err := q.open(ctx, env, q.mount)
	if err != nil {
		return err
	}
	defer closeViews(views)
	from := index.MillisOf(env.now().Add(-time.Duration(q.last)))
	all, began, err := index.Hot(views, from, amounts[q.sort])
	if err != nil {
		return err
	}
	certain := tellDoubts(env, views, from, index.MillisOf(env.now()))
	if len(all) > 0 {
		fmt.Fprintf(env.stderr, "scoutfs-notify-index: %d files were accessed since %v\n", len(all), began)
	}
	n := q.n
	if q.share > 0 {
		n = int(math.Ceil(q.share * float64(len(all))))
	}
	paths, err := q.names(env, all[:min(n, len(all))])
	if err != nil {
		return err
	}
	return q.print(env.stdout, all[:len(paths)], paths, certain)
}

// names returns a path for each entry, "" for none and for one that was deleted.
func (q *hotQuery) names(env *environment, entries []index.Entry) ([]string, error) {
	paths := make([]string, len(entries))
	if !q.paths {
		return paths, nil
	}
	m, err := env.open(q.mount)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	root := mountPoint(q.mount)
	for i := range entries {
		path, err := m.Path(entries[i].Ino)
		switch {
		case err == nil:
			paths[i] = filepath.Join(root, path)
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	return paths, nil
}

func (q *hotQuery) print(w io.Writer, entries []index.Entry, paths []string, certain bool) (err error) {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	if !q.json {
		fmt.Fprintf(out, "%16s %10s %10s  %-20s %s\n", "bytes", "reads", "opens", "last access", "file")
	}
	for i := range entries {
		e := &entries[i]
		if q.json {
			err = enc.Encode(objectOf(e, true, strings.ToValidUTF8(paths[i], "\uFFFD"), certain))
		} else {
			_, err = fmt.Fprintf(out, "%16d %10d %10d  %-20s ino %d %s\n", e.Bytes, e.Reads, e.Opens, e.Last, e.Ino, cli.Printable(paths[i]))
		}
		if err != nil {
			return err
		}
	}
	return out.Flush()
}
