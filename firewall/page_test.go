package firewall

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/ruleset.md quotes is what the kernel holds: each block stands in the golden file that it names.
func TestRulesetPage(t *testing.T) {
	page, err := os.ReadFile("../docs/ruleset.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```nft (\\S+)\n(.*?)^```$").FindAllSubmatch(page, -1)
	if len(blocks) < 10 {
		t.Fatalf("%d blocks are quoted, want the whole way of a packet", len(blocks))
	}
	for _, b := range blocks {
		golden, err := os.ReadFile(filepath.Join("testdata", string(b[1])))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(golden), string(b[2])) {
			t.Errorf("%s does not hold what the page quotes:\n%s", b[1], b[2])
		}
	}
}
