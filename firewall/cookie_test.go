package firewall

import (
	"path/filepath"
	"testing"
)

func TestCookieIsNeverReused(t *testing.T) {
	path := testNamespace(t)
	seen := map[uint64]bool{}
	for i := range 10 {
		c, err := Cookie(path)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Cookie(path)
		if err != nil || again != c {
			t.Fatalf("asked twice: %d, then %d, %v", c, again, err)
		}
		if c == 0 || seen[c] {
			t.Fatalf("namespace %d of the same name: cookie %d was there before", i, c)
		}
		seen[c] = true
		testRun(t, "ip", "netns", "del", filepath.Base(path))
		testRun(t, "ip", "netns", "add", filepath.Base(path))
	}
	own, err := Cookie("/proc/self/ns/net")
	if err != nil || seen[own] {
		t.Errorf("own cookie %d, %v", own, err)
	}
}
