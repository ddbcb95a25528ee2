package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMainArguments: what the program answers before it touches anything.
func TestMainArguments(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := write("good.yaml", "node: a\n"), write("bad.yaml", "node: a\ndefaultMode: block\n")
	for _, c := range []struct {
		args []string
		code int
		says string // on either stream
	}{
		{[]string{"--config", good, "--check-config"}, 0, "configuration is good\n"},
		{[]string{"--config", bad, "--check-config"}, 1, bad + `:2:14: defaultMode: mode "block": want learn, alert or enforce`},
		{[]string{"--config", bad}, 1, bad + ":2:14: "},
		{[]string{"--config", filepath.Join(dir, "none.yaml"), "--check-config"}, 1, "none.yaml: no such file or directory"},
		{[]string{"--config", good, "--check-config", "--log-level", "loud"}, 1, `level "loud": want debug, info, warn or error`},
		{[]string{"--version"}, 0, "bulkheadd "},
		{[]string{"start"}, 2, "bulkheadd: start: unexpected; it takes flags only"},
		{[]string{"--socket", "x"}, 2, "flag provided but not defined: -socket"},
		{[]string{"--help"}, 0, "-check-config"},
	} {
		var out strings.Builder
		if code := Main(c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: %d %q, want %d %q", c.args, code, out.String(), c.code, c.says)
		}
	}
}
