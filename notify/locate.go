// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
)

// Service is where a daemon is, or would be, that serves a mount.
type Service struct {
	Socket string // path of its socket
	Mount  Mount  // the mount that is to be served; zero fields are not known
}

// check returns an error if a daemon serves another mount than it should.
func (s *Service) check(h *Hello) error {
	m := s.Mount
	switch {
	case m.FSID != 0 && h.FSID != m.FSID:
		return fmt.Errorf("%w: file system %v, not %v", ErrOtherMount, h.FSID, m.FSID)
	case m.Device != (Device{}) && h.Device != (Device{}) && h.Device != m.Device:
		return fmt.Errorf("%w: of the file system %v on device %v, not that on device %v", ErrOtherMount, h.FSID, h.Device, m.Device)
	case m.RID != 0 && h.RID != m.RID:
		return fmt.Errorf("%w: %v, not %v", ErrOtherMount, h.RID, m.RID)
	}
	return nil
}

// Served returns where the daemon is that serves target, if the daemons' state files
// say so. It reads these and the list of mounts only: looking up the file system would
// keep it from being unmounted meanwhile. A daemon that was killed leaves its files, so
// the answer can be out of date.
func (d *Dialer) Served(target string) (s Service, ok bool) {
	path, err := resolve(target)
	if err != nil {
		return Service{}, false
	}
	m, _ := MountOf(path)
	runDir := cmp.Or(d.RunDir, RunDir)
	dirs, err := os.ReadDir(runDir)
	if err != nil {
		return Service{}, false
	}
	for _, dir := range dirs {
		st, err := ReadState(filepath.Join(runDir, dir.Name(), StateName))
		if err != nil || !serves(st, m.Device) {
			continue
		}
		if ok {
			return Service{}, false // one of them is left over
		}
		s.Socket, ok = filepath.Join(runDir, dir.Name(), SocketName), true
		s.Mount.Device = m.Device
	}
	return s, ok
}

// resolve returns a target's absolute path. It follows symbolic links only if the path
// does not lead to a ScoutFS without: to look for them touches what is mounted there.
func resolve(target string) (string, error) {
	path, err := filepath.Abs(target)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", target, err)
	}
	if m, err := MountOf(path); err == nil && m.Type == FSType {
		return path, nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil // it need not exist yet
}

// serves tells whether a daemon's state says that it serves the file system on a device.
func serves(st *State, dev Device) bool { return dev != (Device{}) && st.Device == dev }

// FSType is the type of a mounted ScoutFS in lists of mounts.
const FSType = "scoutfs"

// MountPoint is where a file system is mounted.
type MountPoint struct {
	Path   string
	Type   string // of the file system
	Device Device
}

// MountOf returns the mount that a path is on, as this process sees it. It asks the list
// of mounts and does not touch what is mounted, so it never waits for it and never keeps
// it from being unmounted. The path must be absolute and clean, without symbolic links.
func MountOf(path string) (MountPoint, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return MountPoint{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	m, ok := mountinfo.Find(mountinfo.Parse(string(text)), path)
	if !ok {
		return MountPoint{}, fmt.Errorf("find the mount of %s: %w", path, os.ErrNotExist)
	}
	return mountPoint(m), nil
}

// Mounts returns where ScoutFS is mounted, as this process sees it, in the order of
// mounting. Like [MountOf] it touches none of them. A mount that another hides, and all but
// the first of one file system's, are not among them.
func Mounts() ([]MountPoint, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the mounts of ScoutFS: %w", err)
	}
	return mountsIn(string(text)), nil
}

// mountsIn returns what Mounts does, from the text of mountinfo.
func mountsIn(text string) []MountPoint {
	all := mountinfo.Parse(text)
	var found []MountPoint
	for _, m := range all {
		top, ok := mountinfo.Find(all, m.Point)
		here := func(p MountPoint) bool { return p.Device == Device{m.Major, m.Minor} }
		if m.Type == FSType && ok && top.ID == m.ID && !slices.ContainsFunc(found, here) {
			found = append(found, mountPoint(m))
		}
	}
	return found
}

func mountPoint(m mountinfo.Mount) MountPoint {
	return MountPoint{Path: m.Point, Type: m.Type, Device: Device{m.Major, m.Minor}}
}

// lookUp finds the service for target: for a directory it looks up the file system with
// [Statfs], and can block like it. The path of a socket is taken as it is, and so is a
// path that ends in [SocketName] and does not exist. The error is [ErrTarget] for
// anything else.
func (d *Dialer) lookUp(target string) (Service, error) {
	fi, err := os.Stat(target)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) && filepath.Base(target) == SocketName {
			return Service{Socket: target}, nil
		}
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err // the message names the path already
		}
		return Service{}, fmt.Errorf("find the socket for %s: %w", target, err)
	}
	if fi.Mode().Type() == os.ModeSocket {
		return Service{Socket: target}, nil
	}
	if !fi.IsDir() {
		return Service{}, fmt.Errorf("find the socket for %s: %w", target, ErrTarget)
	}
	m, err := Statfs(target)
	if err != nil {
		return Service{}, err
	}
	return Service{Socket: filepath.Join(cmp.Or(d.RunDir, RunDir), m.FSID.String(), SocketName), Mount: m}, nil
}
