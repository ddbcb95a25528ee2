package cni

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/api"
)

const netns = "/run/netns/cni-1"

func TestInterfaces(t *testing.T) {
	for name, tc := range map[string]struct {
		version, result string
		want            []api.CNIInterface
	}{
		"bridge": {"1.1.0", `{"interfaces":[
			{"name":"cni0","mac":"a2:00:00:00:00:01"},
			{"name":"veth1","mac":"a2:00:00:00:00:02"},
			{"name":"eth0","mac":"a2:00:00:00:00:03","mtu":1500,"sandbox":"/run/netns/cni-1"}],
			"ips":[{"address":"10.88.0.5/24","gateway":"10.88.0.1","interface":2},{"address":"fd00:88::5/64","gateway":"fd00:88::1","interface":2}]}`,
			[]api.CNIInterface{{Name: "eth0", MAC: "a2:00:00:00:00:03", Host: "veth1",
				Addrs: []string{"10.88.0.5/24", "fd00:88::5/64"}, Gateways: []string{"10.88.0.1", "fd00:88::1"}}}},
		"bridge, 0.3.1": {"0.3.1", `{"interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/cni-1"}],
			"ips":[{"version":"4","address":"10.88.0.5/24","interface":2}]}`,
			[]api.CNIInterface{{Name: "eth0", Host: "veth1", Addrs: []string{"10.88.0.5/24"}}}},
		"ptp lists the host's address too": {"1.0.0", `{"interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/cni-1"}],
			"ips":[{"address":"10.1.0.1/32","interface":0},{"address":"10.1.0.2/24","interface":1}]}`,
			[]api.CNIInterface{{Name: "eth0", Host: "veth1", Addrs: []string{"10.1.0.2/24"}}}},
		"macvlan has no end on the host": {"1.0.0", `{"interfaces":[{"name":"eth0","sandbox":"/run/netns/cni-1"}],"ips":[{"address":"10.1.0.2/24","interface":0}]}`,
			[]api.CNIInterface{{Name: "eth0", Addrs: []string{"10.1.0.2/24"}}}},
		"the container's end first": {"1.0.0", `{"interfaces":[{"name":"eth0","sandbox":"/run/netns/cni-1"},{"name":"lxc1"}]}`,
			[]api.CNIInterface{{Name: "eth0", Host: "lxc1"}}},
		"two pairs": {"1.0.0", `{"interfaces":[{"name":"v1"},{"name":"eth0","sandbox":"/run/netns/cni-1"},{"name":"v2"},{"name":"eth1","sandbox":"/run/netns/cni-1"}],
			"ips":[{"address":"10.1.0.2/24","interface":3},{"address":"10.1.0.3/24"}]}`,
			[]api.CNIInterface{{Name: "eth0", Host: "v1", Addrs: []string{"10.1.0.3/24"}}, {Name: "eth1", Host: "v2", Addrs: []string{"10.1.0.2/24"}}}},
		"only the host's end is listed": {"1.0.0", `{"interfaces":[{"name":"cali1"}],"ips":[{"address":"10.1.0.2/32"}]}`,
			[]api.CNIInterface{{Name: "eth0", Host: "cali1", Addrs: []string{"10.1.0.2/32"}}}},
		"nothing is listed": {"1.0.0", `{"ips":[{"address":"10.1.0.2/32"}]}`,
			[]api.CNIInterface{{Name: "eth0", Addrs: []string{"10.1.0.2/32"}}}},
		"a sandbox that is no path": {"1.0.0", `{"interfaces":[{"name":"tap0","sandbox":"vm-1"}]}`,
			[]api.CNIInterface{{Name: "tap0"}}},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := resultIn(json.RawMessage(tc.result), tc.version)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := interfaces(raw, tc.version, netns, "eth0")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestResultIn: bytes that are in the request's version already are not touched.
func TestResultIn(t *testing.T) {
	for name, tc := range map[string]struct{ in, version, want string }{
		"as it is":      {`{"x":1e400, "cniVersion":"1.1.0"}`, "1.1.0", `{"x":1e400, "cniVersion":"1.1.0"}`},
		"version added": {`{"x":{"b":1,"a":2}}`, "0.4.0", `{"cniVersion":"0.4.0","x":{"b":1,"a":2}}`},
		"another version": {`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/24"}]}`, "0.4.0",
			`{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.1/24"}],"dns":{}}`},
	} {
		got, err := resultIn(json.RawMessage(tc.in), tc.version)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, tc.want)
		}
	}
}

func TestBadResults(t *testing.T) {
	for in, want := range map[string]string{
		`[]`:                      `prevResult: a JSON array does not fit there`,
		`{"cniVersion":1}`:        `prevResult: cniVersion 1: want a string`,
		`{"cniVersion":"7.0.0"}`:  `prevResult: unsupported CNI result version "7.0.0"`,
		`{"interfaces":[null]}`:   `prevResult: null among interfaces or ips`,
		`{"ips":[{}, null]}`:      `prevResult: null among interfaces or ips`,
		`{"ips":[{}]}`:            `prevResult: ips[0]: no address`,
		`{"ips":[{"address":1}]}`: `prevResult: json: cannot unmarshal number into Go struct field Result.ips.address of type string`,
		`{"cniVersion":"0.4.0","interfACes":[null]}`: `prevResult: null among interfaces or ips`,
	} {
		raw, err := resultIn(json.RawMessage(in), "1.1.0")
		if err == nil {
			_, _, err = interfaces(raw, "1.1.0", netns, "eth0")
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", in, err, want)
		}
	}
}
