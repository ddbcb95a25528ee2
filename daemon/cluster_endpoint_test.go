package daemon

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

func someEndpoint() identity.Workload {
	return identity.Workload{ID: "c1", Namespace: "shop", Name: "web-1", Labels: identity.Labels{"app": "web"},
		NamespaceLabels: identity.Labels{spaceName: "shop", "team": "a"}, Service: identity.Service{Namespace: "shop", Name: "web"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fe80::2")},
		Ports: []identity.ContainerPort{{Name: "http", Protocol: identity.TCP, Port: 80}}, Local: true}
}

// TestEndpoint: what another node reads is what this one wrote, less what means something here only.
func TestEndpoint(t *testing.T) {
	w := someEndpoint()
	raw, err := encodeEndpoint(&w)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 120 {
		t.Errorf("%d bytes", len(raw))
	}
	got, err := decodeEndpoint("node-2", "c1", raw)
	want := w
	want.ID, want.Node, want.Source, want.Local = "node-2/c1", "node-2", identity.SourceGossip, false
	want.Addrs, want.NamespaceLabels = w.Addrs[:2], identity.Labels{"team": "a"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v\nwant %+v", got, err, want)
	}
}

func TestEndpointRefused(t *testing.T) {
	for name, c := range map[string]struct {
		key  string
		e    endpoint
		want string
	}{
		"no name":            {"c1", endpoint{Namespace: "shop"}, "name"},
		"a slash in the key": {"other/c1", endpoint{Namespace: "shop", Name: "x"}, "slash"},
		"an escape sequence": {"c1", endpoint{Namespace: "shop", Name: "x\x1b[2J"}, "control characters"},
		"half an address":    {"c1", endpoint{Namespace: "shop", Name: "x", Addrs: [][]byte{{10, 0}}}, "address 0a00"},
		"a mapped address":   {"c1", endpoint{Namespace: "shop", Name: "x", Addrs: [][]byte{netip.MustParseAddr("::ffff:10.0.0.1").AsSlice()}}, "address"},
		"loopback":           {"c1", endpoint{Namespace: "shop", Name: "x", Addrs: [][]byte{{127, 0, 0, 1}}}, "address 7f000001"},
		"65 addresses":       {"c1", endpoint{Namespace: "shop", Name: "x", Addrs: make([][]byte, 65)}, "65 addresses, bound 64"},
		"a label of 600":     {"c1", endpoint{Namespace: "shop", Name: "x", Labels: map[string]string{"a": strings.Repeat("x", 600)}}, "label"},
	} {
		raw, err := endpointEncoder.Marshal(&c.e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeEndpoint("node-2", c.key, raw); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzDecodeEndpoint: whatever a node sends is refused or is a workload that can be told on as it is.
func FuzzDecodeEndpoint(f *testing.F) {
	w := someEndpoint()
	raw, err := encodeEndpoint(&w)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("c1", raw)
	f.Add("a/b", []byte{0xa0})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		w, err := decodeEndpoint("node-2", key, value)
		if err != nil {
			return
		}
		again, err := encodeEndpoint(&w)
		if err != nil {
			t.Fatal(err)
		}
		same, err := decodeEndpoint("node-2", key, again)
		if err != nil || !reflect.DeepEqual(w.Addrs, same.Addrs) || w.Name != same.Name || len(w.Ports) != len(same.Ports) {
			t.Fatalf("%+v became %+v %v (%x)", w, same, err, bytes.TrimSpace(again))
		}
	})
}
