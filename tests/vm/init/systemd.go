// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// A unit in /run exists for this boot only. Nothing waits for this one, and it waits
// for what any ordinary service does.
const (
	unitName = "vm-program.service"
	unitText = `[Unit]
Description=The program that this machine was booted for

[Service]
ExecStart=` + proto.ServiceInit + `
`
)

// startSystemd makes the first disk the root file system and systemd PID 1, which
// starts this program again as a service. It returns only on failure.
func startSystemd(spec *proto.Spec) error {
	const root = "/sysroot"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(proto.DiskPath(0), root, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	for _, f := range spec.Files {
		if err := copyFile(root+f, f); err != nil {
			return err
		}
	}
	if err := copyFile(proto.ServiceInit, "/init"); err != nil {
		return err
	}
	if err := copyFile(proto.ServiceSpec, proto.SpecPath); err != nil {
		return err
	}
	const units = "/run/systemd/system/"
	wants := units + "multi-user.target.wants/"
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(units+unitName, []byte(unitText), 0o644); err != nil {
		return err
	}
	if err := os.Symlink("../"+unitName, wants+unitName); err != nil {
		return err
	}

	// A move takes along what is mounted below.
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := unix.Mount(dir, root+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to the root file system: %w", dir, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root file system to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	const systemd = "/usr/lib/systemd/systemd"
	err := unix.Exec(systemd, []string{systemd, "--unit=multi-user.target"}, []string{"PATH=" + os.Getenv("PATH")})
	return fmt.Errorf("start %s: %w", systemd, err)
}

// copyFile copies a file with its permissions.
func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, st.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("copy %s to %s: %w", src, dst, err)
	}
	return out.Close()
}

// serve is the service: it runs the program and ends the machine.
func serve() {
	var spec proto.Spec
	status := proto.StatusInit
	err := takePort()
	if err == nil {
		err = readSpec(proto.ServiceSpec, &spec)
	}
	if err == nil {
		status, err = spawn(&spec)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
	}
	end(&spec, status)
}
