package suite

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func small() *Cluster {
	ix := identity.NewIndex("")
	ix.SetBuiltIns(true, false)
	ix.SetNodes(map[string]identity.NodeInfo{
		"n1": {Addrs: []netip.Addr{netip.MustParseAddr("172.18.0.1")}},
		"n2": {Addrs: []netip.Addr{netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd00:18::2")}},
	})
	ix.SetServices([]identity.KubeService{{Namespace: "shop", Name: "front", Selector: identity.Labels{"app": "cart"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.7")}, Ports: []identity.ServicePort{{Name: "web", Port: 80, TargetName: "http", Protocol: identity.TCP}}}})
	for _, w := range []identity.Workload{
		{Name: "web-1", Node: "n1", Labels: identity.Labels{"app": "web"}, Addrs: addrs("10.244.1.2", "fd00:244::2")},
		{Name: "web-2", Node: "n2", Labels: identity.Labels{"app": "web"}, Addrs: addrs("10.244.2.3")},
		{Name: "cart-1", Node: "n2", Labels: identity.Labels{"app": "cart"}, Addrs: addrs("10.244.2.2", "fd00:244::3"),
			Ports: []identity.ContainerPort{{Name: "http", Protocol: identity.TCP, Port: 8080}}},
		{Name: "job-1", Node: "n1", Labels: identity.Labels{"app": "job"}},
	} {
		w.ID, w.Namespace, w.Source = "inventory:shop/"+w.Name, "shop", identity.SourceInventory
		w.Service = identity.ServiceOf(w.Namespace, w.Name, w.Labels, nil)
		ix.Upsert(w)
	}
	return NewCluster(ix.View())
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestFind(t *testing.T) {
	c := small()
	for _, row := range []struct{ name, want string }{
		{"shop/web-1", "shop/web-1"},
		{"shop/web", "shop/web-1 shop/web-2"},
		{"shop/app=web", "shop/web-1 shop/web-2"},
		{"shop/front", "10.96.0.7"},
		{"vip:shop/front", "10.96.0.7"},
		{"10.244.2.2", "shop/cart-1"},
		{"::ffff:10.244.2.2", "shop/cart-1"},
		{"n2", "172.18.0.2"},
		{"172.18.0.2", "172.18.0.2"},
		{"world", "203.0.113.1"},
		{"8.8.8.8", "8.8.8.8"},
		{"shop/wbe", `"shop/wbe": no pod, service or Service of that name; did you mean "shop/web"?`},
		{"nowhere", `"nowhere": want namespace/name, an address, node or world`},
		{"shop/job-1", "pod shop/job-1 has no address: it has ended, or another pod has its address"},
		{"shop/app=none", `"shop/app=none": no workload of namespace shop has these labels`},
		{"127.0.0.1", "address 127.0.0.1: not a host's"},
		{"vip:shop/web", `"shop/web": no Service of that name has an address`},
	} {
		list, err := c.Find(row.name, nil)
		var got []string
		for _, m := range list {
			got = append(got, m.String())
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = err.Error()
		}
		if text != row.want {
			t.Errorf("%s: got %s, want %s", row.name, text, row.want)
		}
	}
}

// TestEachEndOnItsNode: "the node" is the one that the workload judged runs on; another node is not.
func TestEachEndOnItsNode(t *testing.T) {
	c := small()
	list, err := policy.Parse("p.yaml", []byte(`
apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: own, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{network: node}]}, {to: [{network: world}], ports: [{port: 443}]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.NewSet(list...)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		client, server string
		port           uint16
		want           policy.Verdict
	}{
		{"n1", "shop/web-1", 1, policy.Allow},
		{"n2", "shop/web-1", 1, policy.Deny},
		{"n2", "shop/cart-1", 1, policy.Allow},
		{"shop/web-1", "n1", 1, policy.Allow},
		{"shop/web-1", "n2", 1, policy.Deny},
		{"shop/web-2", "n2", 1, policy.Allow},
		{"shop/web-1", "8.8.8.8", 443, policy.Allow},
		{"8.8.8.8", "shop/web-1", 443, policy.Deny},
		{"shop/web-1", "shop/cart-1", 443, policy.Deny},
	} {
		a := c.Ask(set, &Probe{Client: row.client, Server: row.server, Protocol: identity.TCP, Port: row.port})
		if a.Err != nil || a.Decision.Verdict != row.want {
			t.Errorf("%s → %s TCP/%d: %v %v, want %s", row.client, row.server, row.port, a.Decision.Verdict, a.Err, row.want)
		}
	}
}

// TestMarshalRoundTrip: what Marshal writes, Parse reads as the same tests, whatever the names.
func TestMarshalRoundTrip(t *testing.T) {
	f := File{Name: "1e3", Tests: []Test{
		{Clients: []string{"10.0.0.1"}, Servers: []string{"shop/web", "fd00::1", "world"}, Expect: policy.Allow,
			Ports: []Port{{Protocol: identity.TCP, Number: 80}, {Protocol: identity.TCP, Name: "http"}, {Protocol: identity.ICMP, Number: 8}}},
		{Name: "no: really", Clients: []string{"node"}, Servers: []string{"shop/app=web"}, Expect: policy.Deny, Because: "# \"quoted\"\nand more",
			Ports: []Port{{Protocol: identity.UDP, Number: 53}}},
		{Clients: []string{"true", "null"}, Servers: []string{"- x"}, Ports: []Port{{Protocol: identity.SCTP, Number: 1}}},
	}}
	files, err := Parse("t.yaml", f.Marshal([]string{"made", "by\nhand"}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range files[0].Tests {
		files[0].Tests[i].Place = ""
	}
	if d := cmp.Diff(f.Tests, files[0].Tests); d != "" || files[0].Name != f.Name {
		t.Errorf("name %q (-want +got):\n%s", files[0].Name, d)
	}
}

// FuzzParse holds that no file of tests panics, that errors name their place, and that what is read can
// be written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: bulkhead.dev/v1alpha1\nkind: PolicyTest\ntests:\n- {client: a/b, server: [a/c], port: TCP/http, expect: deny, because: x}\n"))
	f.Add([]byte("kind: PolicyTest\ntests: [&a {client: *a}]\n"))
	f.Add([]byte("kind: PolicyTest\n--- x\n- 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := Parse("in.yaml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "in.yaml:") {
				t.Errorf("error without its place: %v", err)
			}
			return
		}
		for i := range files {
			again, err := Parse("in.yaml", files[i].Marshal(nil))
			if err != nil || len(again) != 1 || len(again[0].Tests) != len(files[i].Tests) {
				t.Errorf("not read again: %v\n%s", err, files[i].Marshal(nil))
			}
		}
	})
}

// FuzzParseProbes holds that no file of probes panics, that errors name their place, and that answers are
// JSON with all that was asked.
func FuzzParseProbes(f *testing.F) {
	f.Add([]byte(`[{"client":"shop/web-1","server":"shop/cart-1","protocol":"TCP","port":"http","x":{"y":[1]}}]`))
	f.Add([]byte("[\n{\"client\":1},\n7]"))
	f.Add([]byte(`[{"client":"10.0.0.1","server":"::1","protocol":"ICMP"}] {}`))
	c := small()
	set, err := policy.NewSet()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		probes, err := ParseProbes("in.json", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "in.json:") || len(probes) > 0 {
				t.Errorf("error without its place, or with probes: %v", err)
			}
			return
		}
		for i := range probes {
			out, err := c.Ask(set, &probes[i]).AppendJSON(nil, &probes[i])
			if err != nil || !json.Valid(out) {
				t.Errorf("answer %s: %v", out, err)
			}
			if bytes.Contains(out, []byte(`"verdict":"alert"`)) && !bytes.Contains(data, []byte("alert")) {
				t.Errorf("a verdict that is none: %s", out)
			}
		}
	})
}

// TestDocumentedFiles reads every file of tests that the documentation shows.
func TestDocumentedFiles(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy-tools.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, block := range strings.Split(string(text), "```") {
		yaml, found := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !found {
			continue
		}
		files, err := Parse("docs/policy-tools.md", []byte(yaml))
		if err != nil || len(files) != 1 || len(files[0].Tests) == 0 {
			t.Errorf("block %d: %v, %d files", i, err, len(files))
		}
		n++
	}
	if n == 0 {
		t.Error("no file of tests found")
	}
}
