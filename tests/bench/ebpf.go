// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
)

// The kernel's functions that opens and reads of ScoutFS go through.
const (
	openFunction = "vfs_open"               // (const struct path *, struct file *), of all file systems
	readFunction = "scoutfs_file_read_iter" // (struct kiocb *, struct iov_iter *)
)

// field is where a structure has a field.
type field struct{ structure, name string }

// layout finds fields of the running kernel, as programs that run on any kernel do.
type layout struct {
	spec *btf.Spec
	err  error
}

func (l *layout) offset(f field) int32 {
	var s *btf.Struct
	if err := l.spec.TypeByName(f.structure, &s); err != nil {
		l.err = errors.Join(l.err, err)
		return 0
	}
	for _, m := range s.Members {
		if m.Name == f.name {
			return int32(m.Offset.Bytes())
		}
	}
	l.err = errors.Join(l.err, fmt.Errorf("struct %s has no %s", f.structure, f.name))
	return 0
}

// Where an event has what; 64 bytes, as one of ours.
const (
	eventTime = 8 * iota
	eventPID
	eventUID
	eventInode
	eventOffset
	eventLength
	eventSize = 64
)

// program is one under construction. R6 has the function's first argument, R7 its second,
// R8 the event.
type program struct {
	asm.Instructions
	layout *layout
}

func (p *program) add(ins ...asm.Instruction) { p.Instructions = append(p.Instructions, ins...) }

// read copies 8 bytes from src plus the field's offset to dst, an address.
func (p *program) read(dst, src asm.Register, dstOffset int32, f field) {
	p.add(asm.Mov.Reg(asm.R1, dst), asm.Add.Imm(asm.R1, dstOffset), asm.Mov.Imm(asm.R2, 8),
		asm.Mov.Reg(asm.R3, src), asm.Add.Imm(asm.R3, p.layout.offset(f)), asm.FnProbeReadKernel.Call())
}

// follow loads a pointer into R9.
func (p *program) follow(src asm.Register, f field) {
	p.read(asm.RFP, src, -8, f)
	p.add(asm.LoadMem(asm.R9, asm.RFP, -8, asm.DWord))
}

// arguments starts a program.
func (p *program) arguments() {
	p.add(asm.LoadMem(asm.R6, asm.R1, int16(p.layout.offset(field{"pt_regs", "di"})), asm.DWord),
		asm.LoadMem(asm.R7, asm.R1, int16(p.layout.offset(field{"pt_regs", "si"})), asm.DWord))
}

// event reserves one and fills in who it is.
func (p *program) event(ring *ebpf.Map) {
	p.add(asm.LoadMapPtr(asm.R1, ring.FD()), asm.Mov.Imm(asm.R2, eventSize), asm.Mov.Imm(asm.R3, 0), asm.FnRingbufReserve.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"), asm.Mov.Reg(asm.R8, asm.R0),
		asm.FnKtimeGetNs.Call(), asm.StoreMem(asm.R8, eventTime, asm.R0, asm.DWord),
		asm.FnGetCurrentPidTgid.Call(), asm.StoreMem(asm.R8, eventPID, asm.R0, asm.DWord),
		asm.FnGetCurrentUidGid.Call(), asm.StoreMem(asm.R8, eventUID, asm.R0, asm.DWord))
}

// submit ends a program. The listener is not woken: it looks by itself.
func (p *program) submit() {
	const noWakeup = 1 // BPF_RB_NO_WAKEUP
	p.add(asm.Mov.Reg(asm.R1, asm.R8), asm.Mov.Imm(asm.R2, noWakeup), asm.FnRingbufSubmit.Call())
	p.end()
}

func (p *program) end() { p.add(asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"), asm.Return()) }

func readProgram(l *layout, ring *ebpf.Map) asm.Instructions {
	p := &program{layout: l}
	p.arguments()
	p.event(ring)
	p.follow(asm.R6, field{"kiocb", "ki_filp"})
	p.follow(asm.R9, field{"file", "f_inode"})
	p.read(asm.R8, asm.R9, eventInode, field{"inode", "i_ino"})
	p.read(asm.R8, asm.R6, eventOffset, field{"kiocb", "ki_pos"})
	p.read(asm.R8, asm.R7, eventLength, field{"iov_iter", "count"})
	p.submit()
	return p.Instructions
}

// openProgram looks first whether it is of the file system, whose device dev is.
func openProgram(l *layout, ring *ebpf.Map, dev uint32) asm.Instructions {
	p := &program{layout: l}
	p.arguments()
	p.follow(asm.R6, field{"path", "dentry"})
	p.follow(asm.R9, field{"dentry", "d_inode"})
	p.add(asm.Mov.Reg(asm.R6, asm.R9))
	p.follow(asm.R9, field{"inode", "i_sb"})
	p.follow(asm.R9, field{"super_block", "s_dev"})
	p.add(asm.Mov.Reg32(asm.R9, asm.R9), asm.JNE.Imm(asm.R9, int32(dev), "exit"))
	p.event(ring)
	p.read(asm.R8, asm.R6, eventInode, field{"inode", "i_ino"})
	p.submit()
	return p.Instructions
}

// device returns the kernel's own number of the mount's device.
func device() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(guest.MountPoint, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", guest.MountPoint, err)
	}
	return unix.Major(st.Dev)<<20 | unix.Minor(st.Dev), nil
}

// unlimited lifts the limit on locked memory, which older kernels count programs and maps to.
func unlimited() error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("lift the limit on locked memory: %w", err)
	}
	return nil
}

// attach has the kernel run a program whenever it enters a function.
func attach(function string, ins asm.Instructions) (undo func(), err error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Kprobe, Instructions: ins, License: "GPL"})
	if err != nil {
		return nil, fmt.Errorf("load the program for %s: %w", function, err)
	}
	l, err := link.Kprobe(function, prog, nil)
	if err != nil {
		prog.Close()
		return nil, fmt.Errorf("attach to %s: %w", function, err)
	}
	return func() { l.Close(); prog.Close() }, nil
}

// listenEBPF counts the events of two programs and a ring buffer between them and here.
func listenEBPF(ctx context.Context, t *tally) error {
	if err := unlimited(); err != nil {
		return err
	}
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4 << 20})
	if err != nil {
		return fmt.Errorf("make a ring buffer: %w", err)
	}
	defer ring.Close()
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	dev, err := device()
	if err != nil {
		return err
	}
	l := &layout{spec: spec}
	programs := map[string]asm.Instructions{readFunction: readProgram(l, ring), openFunction: openProgram(l, ring, dev)}
	if l.err != nil {
		return l.err
	}
	for function, ins := range programs {
		undo, err := attach(function, ins)
		if err != nil {
			return err
		}
		defer undo()
	}
	rd, err := ringbuf.NewReader(ring)
	if err != nil {
		return err
	}
	defer rd.Close()
	ready()
	var rec ringbuf.Record
	for again := true; again; {
		again = sleep(ctx)
		rd.SetDeadline(time.Unix(0, 1))
		for {
			err := rd.ReadInto(&rec)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			t.Events++
		}
	}
	return nil
}

// listenKprobe has the kernel run programs that do nothing.
func listenKprobe(ctx context.Context) error {
	if err := unlimited(); err != nil {
		return err
	}
	for _, function := range []string{readFunction, openFunction} {
		p := &program{}
		p.end()
		undo, err := attach(function, p.Instructions)
		if err != nil {
			return err
		}
		defer undo()
	}
	ready()
	<-ctx.Done()
	return nil
}
