// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import "testing"

func TestGaps(t *testing.T) {
	type step struct {
		seq  uint64
		lost uint64
		ok   bool
	}
	for _, tt := range []struct {
		name  string
		steps []step
		total uint64
	}{
		{"none", []step{{1, 0, true}, {2, 0, true}, {3, 0, true}}, 0},
		{"start", []step{{1000, 0, true}, {1001, 0, true}}, 0},
		{"gaps", []step{{1, 0, true}, {19, 17, true}, {20, 0, true}, {22, 1, true}}, 18},
		{"again", []step{{5, 0, true}, {5, 0, false}, {6, 0, true}}, 0},
		{"new mount", []step{{900, 0, true}, {1, 0, false}, {3, 1, true}}, 1},
		{"zero", []step{{0, 0, true}, {1, 0, true}}, 0},
		{"whole range", []step{{0, 0, true}, {1<<64 - 1, 1<<64 - 2, true}}, 1<<64 - 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var g Gaps
			for _, s := range tt.steps {
				if lost, ok := g.Observe(s.seq); lost != s.lost || ok != s.ok {
					t.Errorf("after %d: lost %d, %v, want %d, %v", s.seq, lost, ok, s.lost, s.ok)
				}
				if g.Last() != s.seq {
					t.Errorf("last is %d, want %d", g.Last(), s.seq)
				}
			}
			if g.Lost() != tt.total {
				t.Errorf("lost %d in all, want %d", g.Lost(), tt.total)
			}
		})
	}
}
