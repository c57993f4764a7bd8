// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"fmt"
	"strconv"
	"strings"
)

// UnescapePath undoes systemd-escape --path, for the unit: systemd would expand a
// ${NAME} in a path.
func UnescapePath(name string) (string, error) {
	if name == "-" {
		return "/", nil
	}
	path := []byte("/")
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch c {
		case '-':
			c = '/'
		case '\\':
			hex, ok := strings.CutPrefix(name[i:min(i+4, len(name))], `\x`)
			n, err := strconv.ParseUint(hex, 16, 8)
			if !ok || len(hex) != 2 || err != nil || n == 0 {
				return "", fmt.Errorf("the mount point %q is not escaped as systemd-escape --path prints it", name)
			}
			c = byte(n)
			i += len(`\xNN`) - 1
		}
		path = append(path, c)
	}
	return string(path), nil
}
