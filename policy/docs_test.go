package policy

import (
	"os"
	"strings"
	"testing"
)

// TestDocumented: the policies of docs/policy.md are read, and between them use every field of the
// native kind.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, block := range strings.Split(string(doc), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		list, err := Parse("docs/policy.md", []byte(text))
		if err != nil {
			t.Errorf("block %d: %v", i, err)
		}
		if _, err := NewSet(list...); err != nil {
			t.Error(err)
		}
		n += len(list)
	}
	if n < 2 {
		t.Errorf("%d policies in docs/policy.md", n)
	}
	for _, field := range []string{"mode", "priority", "severity", "reason", "onDeny", "action", "expires", "service", "dnsName", "network", "ipBlock", "except", "name", "from", "to", "ports"} {
		if !strings.Contains(string(doc), field+":") {
			t.Errorf("docs/policy.md does not show %s", field)
		}
	}
}
