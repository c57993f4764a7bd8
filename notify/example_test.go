// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify_test

import (
	"context"
	"fmt"
	"log"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Print who reads which files, over a restart of the daemon, until the file system is
// unmounted.
func ExampleFollow() {
	mount, stop := startDaemon([]notify.Event{
		&notify.Hello{Next: 1, RID: 0x7777},
		&notify.Record{Seq: 1, Type: notify.TypeRead, PID: 4242, Ino: 1027, Length: 1024},
		&notify.Lost{First: 2, Last: 18, Count: 17, Cause: notify.LostQueue},
		&notify.End{Seq: 18, Reason: notify.EndRestarting},
	}, []notify.Event{
		&notify.Hello{Next: 20, RID: 0x7777},
		&notify.Lost{First: 19, Last: 19, Count: 1, Unknown: true, Cause: notify.LostAway | notify.LostUnattended},
		&notify.Record{Seq: 20, Type: notify.TypeRead, PID: 4243, Ino: 1028, Length: 4096},
		&notify.End{Seq: 20, Reason: notify.EndUnmounted},
	}) // in place of mount := "/mnt/scoutfs"
	defer stop()

	for ev, err := range notify.Follow(context.Background(), mount, nil) {
		if err != nil {
			log.Fatal(err)
		}
		switch ev := ev.(type) {
		case *notify.Hello:
			fmt.Println("mount", ev.RID)
		case *notify.Record:
			fmt.Printf("process %d: %v of inode %d\n", ev.PID, ev.Type, ev.Ino)
		case *notify.Lost:
			fmt.Println(ev)
		case *notify.Waiting:
			fmt.Println("waiting:", ev.Err)
		case *notify.End:
			fmt.Println("ended:", ev.Reason)
			if ev.Reason == notify.EndUnmounted {
				return
			}
		}
	}
	// Output:
	// mount 0000000000007777
	// process 4242: read of inode 1027
	// lost 17 records (queue)
	// ended: scoutfs-notifyd is restarting
	// mount 0000000000007777
	// lost 1 record, and maybe any number besides (away+unattended)
	// process 4243: read of inode 1028
	// ended: the file system was unmounted
}

// Take all that one stream tells, losses included.
func ExampleClient_Events() {
	mount, stop := startDaemon([]notify.Event{
		&notify.Hello{Next: 5, RID: 0x7777},
		&notify.Record{Seq: 5, Type: notify.TypeOpen, Ino: 1027},
		&notify.Lost{First: 6, Last: 22, Count: 17, Cause: notify.LostKernel},
		&notify.End{Seq: 22, Reason: notify.EndStopping},
	}) // in place of mount := "/mnt/scoutfs"
	defer stop()

	c, err := notify.Dial(mount)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for ev, err := range c.Events(context.Background()) {
		if err != nil {
			log.Fatal(err) // such as io.ErrUnexpectedEOF: the daemon was killed
		}
		switch ev := ev.(type) {
		case *notify.Hello:
			fmt.Println("next is number", ev.Next)
		case *notify.Record:
			fmt.Println(ev.Type, "number", ev.Seq)
		case *notify.Lost:
			fmt.Printf("%v: numbers %d to %d\n", ev, ev.First, ev.Last)
		case *notify.End:
			fmt.Println("ended:", ev.Reason)
		}
	}
	// Output:
	// next is number 5
	// open number 5
	// lost 17 records (kernel): numbers 6 to 22
	// ended: scoutfs-notifyd was stopped
}

// The simplest loop: records alone, and the sum of what was lost.
func ExampleClient_Next() {
	mount, stop := startDaemon([]notify.Event{
		&notify.Hello{Next: 1},
		&notify.Record{Seq: 1, Type: notify.TypeOpen, Ino: 1027},
		&notify.Lost{First: 2, Last: 18, Count: 17, Cause: notify.LostQueue},
		&notify.Record{Seq: 19, Type: notify.TypeRead, Ino: 1027},
		&notify.End{Seq: 19, Reason: notify.EndUnmounted},
	}) // in place of mount := "/mnt/scoutfs"
	defer stop()

	c, err := notify.Dial(mount)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for {
		rec, err := c.Next()
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(rec.Type, rec.Ino)
	}
	fmt.Println(c.Lost(), "lost;", c.End().Reason)
	// Output:
	// open 1027
	// read 1027
	// EOF
	// 17 lost; the file system was unmounted
}

// Have the daemon leave out what is not wanted: here all but reads by other users than
// root, and what this process does with the files that it hears of.
func ExampleDialer_filter() {
	mount, stop := startDaemon([]notify.Event{
		&notify.Hello{Next: 1},
		&notify.Record{Seq: 1, Type: notify.TypeOpen, Ino: 1027, UID: 1000},
		&notify.Record{Seq: 2, Type: notify.TypeRead, Ino: 1027, UID: 1000},
		&notify.Record{Seq: 3, Type: notify.TypeRead, Ino: 1027, UID: 0},
		&notify.Lost{First: 4, Last: 8, Count: 5, AtMost: true, Cause: notify.LostKernel},
		&notify.End{Seq: 8, Reason: notify.EndUnmounted},
	}) // in place of mount := "/mnt/scoutfs"
	defer stop()

	d := notify.Dialer{Filter: notify.Filter{
		Types: []notify.Type{notify.TypeRead},
		UIDs:  []uint32{0}, SkipUIDs: true,
		SkipSelf: true,
	}}
	c, err := d.DialContext(context.Background(), mount)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for ev, err := range c.Events(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		switch ev := ev.(type) {
		case *notify.Record:
			fmt.Printf("%v of inode %d by user %d\n", ev.Type, ev.Ino, ev.UID)
		case *notify.Lost:
			fmt.Println(ev) // nobody knows who read what in the lost records
		}
	}
	// Output:
	// read of inode 1027 by user 1000
	// lost at most 5 records (kernel)
}
