// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// needed are the options that a machine of tests/vm and the tests in it use, beside what
// the cut leaves alone.
var needed = []string{
	"ACPI", "ACPI_BUTTON", "ACPI_NUMA", "ACPI_PROCESSOR", "BLK_DEV", "BLK_DEV_INITRD", "BLK_DEV_LOOP", "BRIDGE", "CLKBLD_I8253",
	"CLKEVT_I8253", "CRYPTO_CRC32C_INTEL", "DAX", "DEVMEM", "DMADEVICES", "EXT4_FS", "FUSE_FS", "HVC_DRIVER", "HW_RANDOM",
	"I8253_LOCK", "INPUT", "IOMMU_SUPPORT", "LIBCRC32C", "NETDEVICES", "NET_CORE", "NFSD", "NFS_FS", "NFS_V4", "OVERLAY_FS",
	"PCI", "PCIEPORTBUS", "PCI_MSI", "PCI_MMCONFIG", "PNP", "PNPACPI", "PPS", "PTP_1588_CLOCK", "RTC_CLASS", "RTC_DRV_CMOS",
	"RTC_HCTOSYS", "SERIAL_8250", "SERIAL_8250_CONSOLE", "SERIAL_8250_PCI", "SERIAL_8250_PNP", "SERIAL_CORE",
	"SERIAL_CORE_CONSOLE", "SERIAL_EARLYCON", "SQUASHFS", "TTY", "UNIX98_PTYS", "VIRTIO", "VIRTIO_BLK", "VIRTIO_MENU",
	"VIRTIO_NET", "VIRTIO_PCI", "VIRTIO_PCI_LEGACY", "VIRTIO_PCI_LIB", "VT", "VT_CONSOLE",
}

// neededBy returns the options that are needed of a tag's kernel. EL8's virtio wants
// dma_buf_export(), but only drivers select what has it.
func neededBy(tag string) []string {
	if isEL8(tag) {
		return append(slices.Clone(needed), "SYNC_FILE")
	}
	return needed
}

// changed are the options that are not the distribution's: keys that it alone has, and
// what only costs time here. Without debugging information in modules struct module is
// smaller; no other structure differs.
const changed = `CONFIG_SYSTEM_TRUSTED_KEYS=""
CONFIG_SYSTEM_REVOCATION_KEYS=""
CONFIG_SYSTEM_BLACKLIST_HASH_LIST=""
CONFIG_MODULE_SIG_KEY=""
# CONFIG_MODULE_SIG_ALL is not set
# CONFIG_DEBUG_INFO is not set
# CONFIG_DEBUG_INFO_BTF is not set
# CONFIG_DEBUG_INFO_DWARF4 is not set
# CONFIG_DEBUG_INFO_DWARF5 is not set
# CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT is not set
CONFIG_DEBUG_INFO_NONE=y
# CONFIG_UAPI_HEADER_TEST is not set
# CONFIG_WERROR is not set
`

var setOption = regexp.MustCompile(`^CONFIG_(\w+)=([my])\n?$`)

// cut returns a distribution's configuration without most modules and drivers. It leaves
// alone what changes the layout of a structure, and so the kABI; what is built in and no
// driver; and what is needed.
func cut(config string, needed []string, layout, drivers map[string]bool) string {
	var b strings.Builder
	for line := range strings.Lines(config) {
		m := setOption.FindStringSubmatch(line)
		if m == nil || layout[m[1]] || slices.Contains(needed, m[1]) || m[2] == "y" && !drivers[m[1]] {
			b.WriteString(line)
			continue
		}
		fmt.Fprintf(&b, "# CONFIG_%s is not set\n", m[1])
	}
	return b.String() + changed
}

// layoutOptions returns the options that a kernel's headers test inside a structure.
func layoutOptions(tree string) (map[string]bool, error) {
	all := map[string]bool{}
	for _, dir := range []string{"include", "arch/x86/include"} {
		err := eachFile(filepath.Join(tree, dir), func(name string) bool { return strings.HasSuffix(name, ".h") },
			func(text string) { structOptions(text, all) })
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

var (
	comment    = regexp.MustCompile(`(?s)/\*.*?\*/`)
	option     = regexp.MustCompile(`\bCONFIG_(\w+?)(_MODULE)?\b`)
	condition  = regexp.MustCompile(`^#\s*(if|elif)`)
	structHead = regexp.MustCompile(`^(typedef\s+)?(static\s+)?(struct|union)\b[^()]*\{`)
)

// structOptions adds to all the options that a header's #if inside a structure name. It
// relies on kernel style, as tests/series does.
func structOptions(text string, all map[string]bool) {
	text = comment.ReplaceAllString(text, "")
	depth, inside := 0, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			if depth > 0 && inside && condition.MatchString(line) {
				for _, m := range option.FindAllStringSubmatch(line, -1) {
					all[m[1]] = true
				}
			}
			continue
		}
		if depth == 0 && strings.Contains(line, "{") {
			inside = structHead.MatchString(line)
		}
		depth = max(0, depth+strings.Count(line, "{")-strings.Count(line, "}"))
	}
}

var optionHead = regexp.MustCompile(`(?m)^\s*(?:menu)?config\s+(\w+)`)

// driverOptions returns the options that are defined below drivers and sound.
func driverOptions(tree string) (map[string]bool, error) {
	all := map[string]bool{}
	for _, dir := range []string{"drivers", "sound"} {
		err := eachFile(filepath.Join(tree, dir), func(name string) bool { return strings.HasPrefix(name, "Kconfig") },
			func(text string) {
				for _, m := range optionHead.FindAllStringSubmatch(text, -1) {
					all[m[1]] = true
				}
			})
		if err != nil {
			return nil, err
		}
	}
	// The core of the device model is no driver.
	return all, eachFile(filepath.Join(tree, "drivers/base"), func(name string) bool { return strings.HasPrefix(name, "Kconfig") },
		func(text string) {
			for _, m := range optionHead.FindAllStringSubmatch(text, -1) {
				delete(all, m[1])
			}
		})
}

// eachFile passes the text of each regular file below dir, whose name matches, to do.
func eachFile(dir string, matches func(name string) bool, do func(text string)) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || !matches(e.Name()) {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil {
			do(string(text))
		}
		return err
	})
}

// dropped returns the options of layout, but drivers', that a distribution's configuration
// sets and the one made of it does not: they depend on something that was cut.
func dropped(theirs, ours string, layout, drivers map[string]bool) (lost []string) {
	set := map[string]bool{}
	for line := range strings.Lines(ours) {
		if m := setOption.FindStringSubmatch(line); m != nil {
			set[m[1]] = true
		}
	}
	for line := range strings.Lines(theirs) {
		m := setOption.FindStringSubmatch(line)
		if m != nil && layout[m[1]] && !drivers[m[1]] && !set[m[1]] && !strings.Contains(changed, "CONFIG_"+m[1]+" is not set") {
			lost = append(lost, m[1])
		}
	}
	return lost
}
