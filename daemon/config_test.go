package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestParseConfig: every key is read, and what is not said keeps its default.
func TestParseConfig(t *testing.T) {
	got, err := ParseConfig("bulkheadd.yaml", []byte(`
socket: /run/x/api.sock
node: node-1
stateDir: /var/lib/x
policyDir: /etc/x/policies
inventoryDir: ""
defaultMode: alert
namespace: edge
containerd: /run/k3s/containerd/containerd.sock
podman: ""
resolvers: [10.96.0.10, "::ffff:10.0.0.2", "fd00::53"]
networks:
  office: [192.0.2.0/24, 198.51.100.7/24]
podBlocks: [10.244.0.0/16]
alertLog: /var/log/x.jsonl
alertLogSize: 8
labelOrder: [team, app]
logLevel: debug
promoteConnections: 50
promoteAge: 90s
allowNode: false
allowDNS: false
onDeny: {egress: Reject}
maxEntries: 500
group: "999"
holder: ""
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Socket: "/run/x/api.sock", Node: "node-1", StateDir: "/var/lib/x", PolicyDir: "/etc/x/policies",
		DefaultMode: policy.AlertMode, Namespace: "edge",
		Resolvers: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::53")},
		Networks: map[string][]netip.Prefix{"office": {
			netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24")}},
		MaxEntries: 500,
		OnDeny:     OnDeny{policy.Reject, policy.Drop},
		PodBlocks:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Containerd: "/run/k3s/containerd/containerd.sock",
		AlertLog:   "/var/log/x.jsonl", AlertLogSize: 8, LabelOrder: []string{"team", "app"},
		LogLevel: "debug", Group: "999", PromoteConnections: 50, PromoteAge: 90 * time.Second,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, empty := range []string{"", "# nothing\n", "{}"} {
		if got, err := ParseConfig("f", []byte(empty)); err != nil || !reflect.DeepEqual(got, DefaultConfig()) {
			t.Errorf("%q: %+v, %v; want the defaults", empty, got, err)
		}
	}
	if fields := (&Config{}).fields(); len(fields) != reflect.TypeOf(Config{}).NumField() {
		t.Errorf("%d keys for %d fields of Config", len(fields), reflect.TypeOf(Config{}).NumField())
	}
}

// TestParseConfigErrors compares whole sentences: they are what an operator has to act on.
func TestParseConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{"unknown key", "node: a\nsokcet: /x\n", "f.yaml:2:1: sokcet: unknown key; known are alertLog, alertLogSize, allowDNS, allowNode, cluster, containerd, defaultMode, dropUnreadAnswers, group, holder, inventoryDir, labelOrder, logLevel, maxEntries, namespace, networks, node, onDeny, podBlocks, podman, policyDir, promoteAge, promoteConnections, resolvers, socket, stateDir"},
		{"twice", "node: a\nnode: b\n", `f.yaml:2:1: node: given twice`},
		{"mode", "defaultMode: block\n", `f.yaml:1:14: defaultMode: mode "block": want learn, alert or enforce`},
		{"list element", "podBlocks:\n- 10.0.0.0/8\n- 10.0.0.0/99\n", `f.yaml:3:3: podBlocks: netip.ParsePrefix("10.0.0.0/99"): prefix length out of range`},
		{"network", "networks:\n  a: [x]\n", `f.yaml:2:7: networks: netip.ParsePrefix("x"): no '/'`},
		{"scalar for list", "resolvers: 10.0.0.1\n", "f.yaml:1:12: resolvers: cannot unmarshal !!str `10.0.0.1` into []netip.Addr"},
		{"not a mapping", "- a\n", `f.yaml:1:1: want a mapping of keys to values`},
		{"syntax", "node: [\n", `f.yaml:1: did not find expected node content`},
		{"relative", "socket: api.sock\n", `f.yaml: socket: "api.sock": want an absolute path`},
		{"long socket", "socket: /" + strings.Repeat("x", 120) + "\n", `f.yaml: socket: 121 bytes long; at most 103`},
		{"level", "logLevel: loud\n", `f.yaml: logLevel: level "loud": want debug, info, warn or error`},
		{"two", "node: ''\nalertLogSize: 0\n", "f.yaml: node: empty; want this node's name\nf.yaml: alertLogSize: 0: want 1 or more (MiB)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfig("f.yaml", []byte(c.yaml))
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestLoadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if _, err := LoadConfig(file); !os.IsNotExist(err) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte(strings.Repeat("# x\n", maxConfig/4+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(file); err == nil || !strings.Contains(err.Error(), "bound 1048576") {
		t.Errorf("huge file: %v", err)
	}
}

// FuzzParseConfig: no input panics, and what is accepted is usable.
func FuzzParseConfig(f *testing.F) {
	f.Add("node: a\nnetworks: {x: [10.0.0.0/8]}\n")
	f.Add("&a [*a]")
	f.Add("networks: {x: {y: z}}")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConfig("f", []byte(s))
		if err == nil && (c.Node == "" || !filepath.IsAbs(c.Socket)) {
			t.Errorf("accepted %+v", c)
		}
	})
}
