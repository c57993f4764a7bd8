// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadState(t *testing.T) {
	path := filepath.Join(t.TempDir(), StateName)
	if _, err := ReadState(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"fsid": "0123456789abcdef", "clients": [{"id": 3, "behind": true}], "later": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := ReadState(path); err != nil || st.FSID != 0x0123456789abcdef || len(st.Clients) != 1 || !st.Clients[0].Behind {
		t.Errorf("got %+v, %v", st, err)
	}
	if err := os.WriteFile(path, []byte(`{"pid": "x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadState(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a wrong type: %v", err)
	}
}
