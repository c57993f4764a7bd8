// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var update = flag.Bool("update", false, "write the pictures of the README")

// The people and files of an invented hour, in which an archive is read.
const (
	backup, ann, bob, carol = 0, 1000, 1001, 1002

	genomes, climate, telescope, home = 1000, 20_000, 40_000, 60_000
)

var inventedNames = Names{
	Path: func(ino uint64) string {
		switch {
		case ino < climate:
			return fmt.Sprintf("genomes/sample%02d/reads.%d.bam", (ino-genomes)/12, ino)
		case ino < telescope:
			return fmt.Sprintf("climate/%d/run%d/t2m.%d.nc", 1950+(ino-climate)/40, ino%4, ino)
		case ino < home:
			return fmt.Sprintf("telescope/night%d/raw.%d.fits", (ino-telescope)/60, ino)
		}
		return fmt.Sprintf("home/%s/notes.%d", []string{"ann", "bob", "carol"}[ino%3], ino)
	},
	User: func(uid uint32) string {
		return map[uint32]string{backup: "root", ann: "ann", bob: "bob", carol: "carol"}[uid]
	},
}

// invented are the hour's events.
func invented(add func(notify.Event)) {
	r := rand.New(rand.NewPCG(11, 27))
	hot := rand.NewZipf(r, 1.3, 4, 239)
	for s := range 3600 {
		at := time.Duration(s) * time.Second
		// Ann looks at a few of 240 files, again and again.
		for range 3 {
			ino := genomes + hot.Uint64()
			add(read(at, ino, uint64(r.IntN(64))<<20, 1<<20, ann))
		}
		// Bob goes through the years, with a pause.
		if s < 1500 || s > 2100 {
			for i := range 4 {
				n := uint64(s*4 + i)
				add(read(at, climate+n/8%2400, n%8<<22, 4<<20, bob))
			}
		}
		// Carol has one night's files recalled, twice.
		if s > 600 && s < 1200 || s > 2700 && s < 3300 {
			n := uint64(s % 600)
			add(read(at, telescope+n/2, n%2<<23, 8<<20, carol))
			add(read(at, home+n%90, 0, 64<<10, carol))
		}
		// A backup reads all of the small ones, and is too much for whoever watches.
		if s > 2400 && s < 2600 {
			for i := range 40 {
				add(read(at, home+uint64((s-2400)*40+i), 0, 256<<10, backup))
			}
			if s == 2450 {
				add(&notify.Lost{Count: 4711, Cause: notify.LostQueue, Time: start.Add(at + 45*time.Second)})
			}
		}
	}
}

// pixelsOnly replaces images by what they show: how they are compressed depends on Go's
// version.
func pixelsOnly(t *testing.T, text []byte) []byte {
	t.Helper()
	return regexp.MustCompile(`base64,[^"]*`).ReplaceAllFunc(text, func(b []byte) []byte {
		raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimPrefix(b, []byte("base64,"))))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Appendf(nil, "%v", img)
	})
}

// The pictures of the README are those that are drawn of the invented hour. With -update,
// as make pictures has it, they are made.
func TestReadme(t *testing.T) {
	all := map[string]Picture{
		"heatmap-file": NewHeatmap(inventedNames), "heatmap": NewHeatmap(inventedNames), "treemap": NewTreemap(inventedNames),
		"reuse": NewReuse(64 << 10), "who": NewWho(inventedNames),
	}
	titles := map[string]string{
		"heatmap-file": "When what was read: one file", "heatmap": "When what was read: /mnt/scoutfs", "treemap": "What was read: /mnt/scoutfs",
		"reuse": "What was read again: /mnt/scoutfs", "who": "Who read: /mnt/scoutfs",
	}
	invented(func(ev notify.Event) {
		for name, p := range all {
			if r, ok := ev.(*notify.Record); !ok || name != "heatmap-file" || r.Ino == genomes {
				p.Add(ev)
			}
		}
	})
	for name, p := range all {
		var b bytes.Buffer
		if err := p.Draw(&b, titles[name]); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("..", "..", "..", "docs", "pictures", name+".svg")
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(pixelsOnly(t, got), pixelsOnly(t, b.Bytes())) {
			t.Errorf("%s is not what is drawn now: make pictures, and look at it", file)
		}
	}
}
