// SPDX-License-Identifier: GPL-2.0-only

// El builds a kernel of the RHEL family from a repository with its source, cut down to
// what a machine of tests/vm needs, and prints its folder for KERNEL_DIR. With -prepare it
// stops when modules can be compiled for it. With -compile it compiles ScoutFS with every
// series, for as many kernels as are named, looks at the instructions that the hooks add,
// and prints a table: kernel by release by check. With -boot it builds the kernels, and the
// tests boot them, too: those of tests/guest, the packages by dnf and dkms, and systemd.
//
// EL_KERNEL_SRC names a git repository in which a tag, such as
// 5.14.0-570.32.1.el9_6, is a kernel's source with the distribution's configurations in a
// folder of it, as AlmaLinux publishes its own. It is only read, and may be bare or lack
// files: those of graphics and the documentation are not looked at.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

const usage = `usage: el [-prepare | -compile | -boot] [-tag TAG] [EL...]

EL is a release such as 9, 9.4 or 10: the newest tag of it in EL_KERNEL_SRC is built.
`

// options are the settings from the command line.
type options struct {
	src     string
	tag     string
	prepare bool
	compile bool
	boot    bool
	only    string
	els     []string
}

func main() {
	o := options{src: os.Getenv("EL_KERNEL_SRC")}
	flag.StringVar(&o.src, "src", o.src, "the `repository` with the kernels' source; the default is EL_KERNEL_SRC")
	flag.StringVar(&o.tag, "tag", "", "the `tag` to build, instead of the newest of a release")
	flag.BoolVar(&o.prepare, "prepare", false, "only prepare the tree, so that modules compile for it, and print it")
	flag.BoolVar(&o.compile, "compile", false, "compile ScoutFS of SCOUTFS_SRC with its series for each kernel, prepared only")
	flag.BoolVar(&o.boot, "boot", false, "the same for kernels that are built, and run the tests on them")
	flag.StringVar(&o.only, "only", "", "with -compile and -boot: only these `checks`, separated by commas")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	o.els = flag.Args()
	run.Main(func(ctx context.Context) int {
		if err := o.run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "el:", err)
			return 1
		}
		return 0
	})
}

func (o *options) run(ctx context.Context) error {
	if o.src == "" {
		return errors.New("set EL_KERNEL_SRC to a git repository with the source of RHEL-like kernels by tag")
	}
	if o.compile && o.boot || o.prepare && (o.compile || o.boot) {
		return errors.New("-prepare, -compile and -boot exclude each other")
	}
	if o.only != "" && !o.compile && !o.boot {
		return fmt.Errorf("-only %s: there are checks only with -compile or -boot", o.only)
	}
	tags, err := o.tags(ctx)
	if err != nil {
		return err
	}
	if o.compile || o.boot {
		return o.table(ctx, tags)
	}
	for _, tag := range tags {
		dir, err := o.kernel(ctx, tag)
		if err != nil {
			return err
		}
		fmt.Println(dir)
	}
	return nil
}

// tags returns what to build.
func (o *options) tags(ctx context.Context) ([]string, error) {
	if o.tag != "" {
		if len(o.els) > 0 {
			return nil, errors.New("-tag and a release exclude each other")
		}
		return []string{o.tag}, nil
	}
	if len(o.els) == 0 {
		return nil, errors.New("name a release, such as 9 or 9.4, or a -tag")
	}
	out, err := run.Output(ctx, "git", "-C", o.src, "tag", "--list", "*.el*")
	if err != nil {
		return nil, fmt.Errorf("read EL_KERNEL_SRC %s: %w", o.src, err)
	}
	var tags []string
	for _, el := range o.els {
		tag, err := newest(out, el)
		if err != nil {
			return nil, err
		}
		tags = append(tags, tag)
	}
	return tags, nil
}
