// SPDX-License-Identifier: GPL-2.0-only

package notify_test

import (
	"fmt"
	"io"
	"log"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Print who reads which files until the file system is unmounted.
func Example() {
	c, err := notify.Dial("/mnt/scoutfs")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for lost := uint64(0); ; {
		r, err := c.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		if l := c.Lost(); l > lost {
			fmt.Printf("lost %d records\n", l-lost)
			lost = l
		}
		if r.Type == notify.TypeRead {
			fmt.Printf("process %d read %d bytes of inode %d\n", r.PID, r.Length, r.Ino)
		}
	}
}
