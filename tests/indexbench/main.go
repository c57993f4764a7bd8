// SPDX-License-Identifier: GPL-2.0-only

// Indexbench measures scoutfs-notify-index: records absorbed from a socket, restart, cold
// and size on disk, and beside them the same rows in SQLite. It is a module of its own for
// SQLite's sake, and prints a Markdown table.
package main

import (
	"context"
	"database/sql"
	"encoding"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const fsid = notify.ID(1)

var (
	inodes  = flag.Int("inodes", 10_000_000, "inodes in the store")
	rows    = flag.Int("rows", 200_000, "rows in SQLite")
	rate    = flag.Int("rate", 200_000, "records a second")
	seconds = flag.Int("seconds", 15, "of records, for each kind of load")
	dir     = flag.String("dir", "", "folder for the stores, on the disk to measure")
	follow  = flag.String("follow", "", "be the index that follows this socket")
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "indexbench:", err)
		os.Exit(1)
	}
}

func main() {
	flag.Parse()
	if *follow != "" {
		must(followSocket(*follow, *dir))
		return
	}
	top, err := os.MkdirTemp(*dir, "indexbench")
	must(err)
	defer os.RemoveAll(top)
	fmt.Println("| what | index | the same in SQLite |\n|---|---|---|")
	lite := measureSQLite(filepath.Join(top, "sqlite"))
	for _, load := range []struct {
		name string
		ino  func(i int) uint64
	}{
		{"each inode in ten records in a row", func(i int) uint64 { return 1 + uint64(i/10) }},
		{"each record of another inode, of all", func(i int) uint64 { return 1 + uint64(i)*2654435761%uint64(*inodes) }},
	} {
		measureAbsorb(load.name, filepath.Join(top, "absorb"), load.ino, lite)
		must(os.RemoveAll(filepath.Join(top, "absorb")))
	}
	measureStore(filepath.Join(top, "store"), lite)
}

// followSocket is the index as the program runs it.
func followSocket(socket, dir string) error {
	debug.SetGCPercent(50) // as the program does
	s, err := index.Open(dir, fsid, index.DefaultLimits())
	if err != nil {
		return err
	}
	f := &index.Feed{Store: s, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	err = f.Run(func(yield func(notify.Event, error) bool) {
		for ev, err := range notify.Follow(context.Background(), socket, &notify.Dialer{Resume: s.Resume(), Idle: index.IdleInterval}) {
			_, end := ev.(*notify.End)
			if !yield(ev, err) || end {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return s.Close()
}

// measureAbsorb sends records at a steady rate, as the daemon does, and prints what the
// index takes for them, its last flush included.
func measureAbsorb(name, dir string, ino func(int) uint64, lite sqlite) {
	must(os.MkdirAll(dir, 0o700))
	socket := filepath.Join(dir, notify.SocketName)
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	must(err)
	defer ln.Close()
	self, err := os.Executable()
	must(err)
	cmd := exec.Command(self, "-follow", socket, "-dir", filepath.Join(dir, "store"))
	cmd.Stderr = os.Stderr
	must(cmd.Start())
	conn, err := ln.AcceptUnix()
	must(err)
	must(conn.SetWriteBuffer(4 << 20))
	_, err = conn.Read(make([]byte, notify.RequestSize2))
	must(err)
	send := func(b []byte) {
		_, err := conn.Write(b)
		must(err)
	}
	send(encode(nil, &notify.Hello{Next: 1, Time: time.Now(), FSID: fsid, RID: 1, Version: notify.Version2}))
	const tick = 5 * time.Millisecond
	start := time.Now()
	n := *rate * *seconds
	b := make([]byte, 0, notify.RingRecords*notify.RecordSize)
	for i := 0; i < n; {
		for due := min(n, int(time.Since(start).Seconds()*float64(*rate))); i < due; {
			b = b[:0]
			for ; i < due && len(b) < cap(b); i++ {
				rec := notify.Record{
					Seq: uint64(i + 1), TimeNS: uint64(time.Now().UnixNano()), Ino: ino(i), Length: 65536,
					PID: 4242, TID: 4242, UID: 1000, GID: 100, Type: notify.TypeRead,
				}
				b, _ = rec.AppendBinary(b)
			}
			send(b)
		}
		time.Sleep(tick)
	}
	took := time.Since(start)
	send(encode(nil, &notify.End{Seq: uint64(n), Reason: notify.EndStopping, Time: time.Now()}))
	conn.Close()
	must(cmd.Wait())
	use := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	v, err := index.OpenView(filepath.Join(dir, "store"), fsid)
	must(err)
	lost := v.Nodes[0].Lost
	if v.Nodes[0].Records+lost != uint64(n) {
		must(fmt.Errorf("%d records are in the store and %d are told as lost, of %d", v.Nodes[0].Records, lost, n))
	}
	v.Close()
	fmt.Printf("| %d records a second for %.0f s, %s | %.2f cores, %.2f µs a record, %d MB resident, %d lost | %.2f cores for upserts alone, if each record is one |\n",
		*rate, took.Seconds(), name, cpu.Seconds()/float64(n)*float64(*rate), float64(cpu.Microseconds())/float64(n), use.Maxrss/1024, lost,
		lite.upsert.Seconds()*float64(*rate))
}

func encode(b []byte, events ...notify.Event) []byte {
	for _, ev := range events {
		b, _ = ev.(encoding.BinaryAppender).AppendBinary(b)
	}
	return b
}

// measureStore fills a store with inodes, most of them cold, and asks it.
func measureStore(dir string, lite sqlite) {
	s, err := index.Open(dir, fsid, index.DefaultLimits())
	must(err)
	now := time.Now()
	old := now.Add(-100 * 24 * time.Hour)
	must(s.Write(encode(nil, &notify.Hello{Next: 1, Time: old, FSID: fsid, RID: 1, Version: notify.Version2})))
	must(s.Look(index.Notice{Sample: &index.Sample{Time: index.MillisOf(old), Seq: 5}}))
	rnd := rand.New(rand.NewPCG(1, 2))
	start, cpu := time.Now(), cpuTime()
	var b []byte
	for i := range *inodes {
		at := old.Add(time.Duration(rnd.Int64N(int64(9 * 24 * time.Hour))))
		if i%10 == 0 {
			at = now.Add(-time.Duration(rnd.Int64N(int64(80 * 24 * time.Hour)))) // warm
		}
		rec := notify.Record{Seq: uint64(i + 1), TimeNS: uint64(at.UnixNano()), Ino: uint64(i + 1), Length: 1 << 20, PID: rnd.Uint32N(1 << 20), UID: 1000 + rnd.Uint32N(100), GID: 100, Type: notify.TypeRead}
		if b, _ = rec.AppendBinary(b); len(b) >= 1<<18 {
			writeAll(s, b)
			b = b[:0]
		}
	}
	writeAll(s, b)
	must(s.Close())
	fmt.Printf("| fill with %d inodes | %.1f s, %.2f µs of processor an inode | %.2f µs a row |\n", *inodes, time.Since(start).Seconds(),
		float64((cpuTime()-cpu).Microseconds())/float64(*inodes), float64(lite.insert.Nanoseconds())/1e3)
	size := folderSize(dir)
	fmt.Printf("| on disk | %.1f B an inode, %d MB | %.1f B a row |\n", float64(size)/float64(*inodes), size>>20, lite.bytes)

	// Half full: as many records as a journal holds before it is flushed.
	s, err = index.Open(dir, fsid, index.DefaultLimits())
	must(err)
	for i := range 2_000_000 {
		rec := notify.Record{Seq: uint64(*inodes + i + 1), TimeNS: uint64(now.UnixNano()), Ino: uint64(i%500_000 + 1), Length: 1, Type: notify.TypeRead}
		if b, _ = rec.AppendBinary(b); len(b) >= 1<<18 {
			must(s.Write(b))
			b = b[:0]
		}
	}
	journal := folderSize(dir) - size
	s.Abandon()
	start, cpu = time.Now(), cpuTime()
	s, err = index.Open(dir, fsid, index.DefaultLimits())
	must(err)
	fmt.Printf("| restart with %d MB of journal | %.2f s to following, %.2f s of processor | |\n", journal>>20, time.Since(start).Seconds(), (cpuTime() - cpu).Seconds())
	must(s.Close())

	start, cpu = time.Now(), cpuTime()
	v, err := index.OpenView(dir, fsid)
	must(err)
	cold := 0
	files, err := index.Cold([]*index.View{v}, index.MillisOf(now.Add(-90*24*time.Hour)), func(_ uint64, f func(uint64)) error {
		// In the order in which ScoutFS lists them, by transaction, which is any.
		for i := range *inodes {
			f(1 + uint64(i)*2654435761%uint64(*inodes))
		}
		return nil
	}, func(*index.Entry, bool) error { cold++; return nil })
	must(err)
	v.Close()
	fmt.Printf("| cold: %d of %d files, without ScoutFS's own part | %.2f s, %.2f s of processor, at most %d MB resident | %.2f s to count them, by %.2f s a million |\n", cold, files,
		time.Since(start).Seconds(), (cpuTime() - cpu).Seconds(), usage().Maxrss/1024, lite.scan.Seconds()*float64(*inodes), lite.scan.Seconds()*1e6)
}

// writeAll writes and flushes when it is due; it waits while memory is full.
func writeAll(s *index.Store, b []byte) {
	for {
		err := s.Write(b)
		must(s.Maintain())
		if err == nil {
			return
		}
		if err != index.ErrFull {
			must(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func folderSize(dir string) (n int64) {
	must(filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return err
	}))
	return n
}

func usage() (r syscall.Rusage) {
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return r
}

func cpuTime() time.Duration {
	r := usage()
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// sqlite is what SQLite takes for a row.
type sqlite struct {
	insert, upsert, scan time.Duration
	bytes                float64
}

// measureSQLite does what a simple index would do: an upsert for each inode, sorted, in
// large transactions.
func measureSQLite(dir string) (out sqlite) {
	must(os.MkdirAll(dir, 0o700))
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=cache_size(-200000)")
	must(err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("create table a(ino integer primary key, first int, last int, uid int, gid int, pid int, type int, opens int, reads int, bytes int)")
	must(err)
	put := func(inos []uint64) {
		tx, err := db.Begin()
		must(err)
		st, err := tx.Prepare(`insert into a values(?,?,?,1000,100,4242,2,0,1,65536) on conflict(ino) do update set
			last=max(last,excluded.last), uid=excluded.uid, gid=excluded.gid, pid=excluded.pid, type=excluded.type,
			opens=opens+excluded.opens, reads=reads+excluded.reads, bytes=bytes+excluded.bytes`)
		must(err)
		for _, ino := range inos {
			_, err := st.Exec(int64(ino), 1_700_000_000_000, 1_700_000_000_000+int64(ino))
			must(err)
		}
		must(tx.Commit())
	}
	const batch = 100_000
	start := cpuTime()
	for i := 0; i < *rows; i += batch {
		inos := make([]uint64, batch)
		for j := range inos {
			inos[j] = uint64(i + j + 1)
		}
		put(inos)
	}
	out.insert = (cpuTime() - start) / time.Duration(*rows)
	out.bytes = float64(folderSize(dir)) / float64(*rows)
	start = cpuTime()
	for range 5 {
		inos := make([]uint64, batch)
		for j := range inos {
			inos[j] = 1 + rand.Uint64N(uint64(*rows))
		}
		slices.Sort(inos)
		put(inos)
	}
	out.upsert = (cpuTime() - start) / (5 * batch)
	begin := time.Now()
	var n int
	must(db.QueryRow("select count(*) from a where last < ?", 1_700_000_000_000+*rows/2).Scan(&n))
	out.scan = time.Since(begin) / time.Duration(*rows)
	return out
}
