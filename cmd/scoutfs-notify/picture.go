// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/picture"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const pictureAbout = `Draws what is read until it is interrupted (ctrl-C) or the stream ends, or what was read
in a recording, as an SVG that a browser opens. KIND is one of

  heatmap  when which file was read, or with -ino NUMBER which part of that file
  treemap  how much was read in which folder, and how long ago
  reuse    how soon data is read again, and what share of it a cache would have served
  who      how much each user read, by time
`

// pictures make the kinds of pictures.
var pictures = map[string]struct {
	title string
	make  func(names picture.Names, block uint64) picture.Picture
}{
	"heatmap": {"When what was read: %s", func(n picture.Names, _ uint64) picture.Picture { return picture.NewHeatmap(n) }},
	"treemap": {"What was read: %s", func(n picture.Names, _ uint64) picture.Picture { return picture.NewTreemap(n) }},
	"reuse":   {"What was read again: %s", func(_ picture.Names, block uint64) picture.Picture { return picture.NewReuse(block) }},
	"who":     {"Who read: %s", func(n picture.Names, _ uint64) picture.Picture { return picture.NewWho(n) }},
}

// runPicture is the command picture.
func runPicture(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("picture", flag.ContinueOnError)
	block := 64
	var duration time.Duration
	out := flags.String("o", "", "write to this `file`, whole or not at all, instead of to standard output")
	title := flags.String("title", "", "`text` above the picture")
	flags.Var(cli.Int(&block, 1, 1<<20), "block", "for reuse: the size of a cache's blocks in `KiB`, 1 or more")
	flags.Var(cli.Duration(&duration, 0, math.MaxInt64), "for", "end after `duration`; 0 for never (the default)")
	var ff filterFlags
	ff.define(flags)
	rest, err := env.program.Parse(flags, "KIND [MOUNT]", pictureAbout, args)
	if err != nil {
		return err
	}
	kinds := strings.Join(slices.Sorted(maps.Keys(pictures)), ", ")
	if len(rest) == 0 {
		return usagef("picture", "the kind of picture is missing: %s", kinds)
	}
	kind, ok := pictures[rest[0]]
	if !ok {
		return usagef("picture", "there is no kind %q: the kinds are %s", rest[0], kinds)
	}
	mount, err := theMount(env, "picture", rest[1:])
	if err != nil {
		return err
	}
	if *out == "" && env.height() > 0 {
		return usagef("picture", "standard output is a terminal: name a file with -o")
	}
	f, err := ff.filter("picture")
	if err != nil {
		return err
	}
	if *title == "" {
		*title = fmt.Sprintf(kind.title, mount)
	}
	if duration > 0 && !isRecording(env, mount) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	return writeWhole(env.stdout, *out, func(w io.Writer) error {
		pick := ff.picker()
		src, err := openSource(ctx, env, "picture", mount, options{dialer: dialer(env, f), paths: rest[0] == "heatmap" || rest[0] == "treemap", pick: pick})
		if err != nil {
			return err
		}
		defer src.close()
		defer pick.tell(env.stderr, "picture")
		p := kind.make(picture.Names{
			Path: func(ino uint64) string { return src.names.path(ctx, ino).Text },
			User: src.names.user,
		}, uint64(block)<<10)
		end, err := addAll(ctx, env, src, p)
		// What there is, is drawn in any case.
		if derr := p.Draw(w, *title); derr != nil {
			return derr
		}
		if src.recorded {
			return drawnError{recordingError(err, "picture", mount)}.orNil()
		}
		return drawnError{ended(env, end, err, "picture", mount)}.orNil()
	})
}

// addAll adds a source's events to a picture until it ends, which is no error when the
// context does. end is nil if it did not come to the end of a mount's stream.
func addAll(ctx context.Context, env *environment, src *source, p picture.Picture) (end *notify.End, err error) {
	var n uint64
	next := env.now()
	for ev, err := range src.events {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return nil, err
		}
		p.Add(ev)
		switch ev := ev.(type) {
		case *notify.Record:
			n++
		case *notify.End:
			end = ev
		}
		if env.progress && n&0xfff == 1 && env.now().After(next) {
			next = env.now().Add(time.Second)
			fmt.Fprintf(env.stderr, "\r%d accesses", n)
		}
	}
	if env.progress {
		fmt.Fprintf(env.stderr, "\r%d accesses\n", n)
	}
	return end, nil
}

// drawnError is an error after which the picture is there all the same.
type drawnError struct{ error }

func (e drawnError) Unwrap() error { return e.error }

func (e drawnError) orNil() error {
	if e.error == nil {
		return nil
	}
	return e
}

// writeWhole has a file written, or stdout if path is "". The file gets its name when it is
// whole; if nothing can be written there, that shows before.
func writeWhole(stdout io.Writer, path string, write func(w io.Writer) error) error {
	var drawn drawnError
	if path == "" {
		var b bytes.Buffer
		err := write(&b)
		if err != nil && !errors.As(err, &drawn) {
			return err
		}
		if _, werr := stdout.Write(b.Bytes()); werr != nil {
			return werr
		}
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".scoutfs-notify-*")
	if err != nil {
		return fmt.Errorf("picture: %w", err)
	}
	defer os.Remove(f.Name()) // unless it has its name
	defer f.Close()
	err = write(f)
	if err != nil && !errors.As(err, &drawn) {
		return err
	}
	// It says who read what: like a recording, it is for root alone, as CreateTemp made it.
	werr := f.Close()
	if werr == nil {
		werr = os.Rename(f.Name(), path)
	}
	if werr != nil {
		return fmt.Errorf("picture: %w", werr)
	}
	return err
}
