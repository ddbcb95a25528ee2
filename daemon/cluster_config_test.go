package daemon

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseClusterConfig(t *testing.T) {
	key := "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" // RFC 8032, 7.1, test 1
	var public PublicKey
	if err := public.UnmarshalText([]byte(key)); err != nil {
		t.Fatal(err)
	}
	bind := netip.MustParseAddrPort("0.0.0.0:7946")
	for name, c := range map[string]struct {
		text string
		want ClusterConfig
	}{
		"name alone": {"{name: prod}", ClusterConfig{Name: "prod", Bind: bind, Unsigned: "accept", StartWait: 250 * time.Millisecond, Grace: 5 * time.Minute}},
		"trust refuses what is not signed": {"{name: prod, trust: ['" + key + "']}", ClusterConfig{Name: "prod", Bind: bind,
			Trust: []PublicKey{public}, Unsigned: "refuse", StartWait: 250 * time.Millisecond, Grace: 5 * time.Minute}},
		"everything": {"{name: prod, keyFile: /etc/k, bind: '[::]:99', advertise: 192.0.2.1, seeds: [a, 'b:1', 'file:/s'], trust: ['" + key +
			"'], unsigned: alert, nodePodBlocks: [10.1.2.3/24], startWait: 0s, grace: 1m}",
			ClusterConfig{Name: "prod", KeyFile: "/etc/k", Bind: netip.MustParseAddrPort("[::]:99"), Advertise: netip.MustParseAddrPort("192.0.2.1:7946"),
				Seeds: []string{"a", "b:1", "file:/s"}, Trust: []PublicKey{public}, Unsigned: "alert",
				NodePodBlocks: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}, Grace: time.Minute}},
	} {
		got, err := ParseConfig("f", []byte("node: n1\ncluster: "+c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(*got.Cluster, c.want) {
			t.Errorf("%s: got  %+v\nwant %+v", name, *got.Cluster, c.want)
		}
	}
}

func TestParseClusterConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		"cluster: prod":                                    "f:2:10: cluster: want a mapping of keys to values",
		"cluster:\n  nme: x":                               "f:3:3: cluster.nme: unknown key; known are advertise, bind, grace,",
		"cluster:\n  name: x\n  name: y":                   "f:4:3: cluster.name: given twice",
		"cluster:\n  bind: host:1":                         `f:3:9: cluster.bind: "host:1": want address or address:port`,
		"cluster:\n  name: x\n  trust: [YQ==]":             `f:4:11: cluster.trust: key "YQ==": 1 bytes, want 32 in base64`,
		"cluster:\n  name: x\n  grace: soon":               "f:4:10: cluster.grace: cannot unmarshal",
		"cluster: {}":                                      "f: cluster.name: 0 bytes; want 1 to 255",
		"cluster: {name: x, unsigned: maybe}":              `f: cluster.unsigned: "maybe": want accept, alert, refuse`,
		"cluster: {name: x, startWait: 1m}":                "f: cluster.startWait: 1m0s: want a span of 0 to 10s",
		"cluster: {name: x, keyFile: k}":                   `f: cluster.keyFile: "k": want an absolute path`,
		"cluster: {name: x, seeds: ['file:s']}":            `f: cluster.seeds: "file:s": want host, host:port or file:`,
		"cluster: {name: x, advertise: '0.0.0.0:1'}":       "f: cluster.advertise: 0.0.0.0:1: want an address of this node",
		"cluster: {name: x, nodePodBlocks: [10.0.0.0/33]}": "f:2:36: cluster.nodePodBlocks: ",
	} {
		_, err := ParseConfig("f", []byte("node: n1\n"+text))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
	if _, err := ParseConfig("f", []byte("node: a/b\ncluster: {name: x}")); err == nil {
		t.Error("a node with a slash in its name is taken")
	}
}
