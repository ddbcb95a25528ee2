package cni

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

const defaults = `"cniVersion":"1.1.0","name":"pods","type":"bulkhead-cni"`

func TestConfig(t *testing.T) {
	want := func(change func(*Config)) *Config {
		c := &Config{Version: "1.1.0", Network: "pods", Socket: "/run/bulkhead/api.sock",
			Timeout: 10 * time.Second, PendingDir: "/run/bulkhead/pending"}
		change(c)
		return c
	}
	for name, tc := range map[string]struct {
		in   string
		want *Config
	}{
		"defaults": {``, want(func(*Config) {})},
		"nulls":    {`,"socket":null,"runtimeConfig":null,"prevResult":null,"args":null`, want(func(*Config) {})},
		"our keys": {`,"socket":"/s/a.sock","failurePolicy":"open","timeout":"1m30s"`, want(func(c *Config) {
			c.Socket, c.Open, c.Timeout, c.PendingDir = "/s/a.sock", true, 90*time.Second, "/s/pending"
		})},
		"journal elsewhere": {`,"pendingDir":"/var/lib/x/"`, want(func(c *Config) { c.PendingDir = "/var/lib/x" })},
		"dns as the convention has it": {`,"runtimeConfig":{"dns":{"servers":["10.96.0.10"],"searches":["a"]}}`, want(func(c *Config) {
			c.RuntimeConfig = json.RawMessage(`{"dns":{"servers":["10.96.0.10"],"searches":["a"]}}`)
			c.Resolvers = []string{"10.96.0.10"}
		})},
		"dns as containerd's library has it": {`,"runtimeConfig":{"dns":{"Servers":["10.96.0.10"]}}`, want(func(c *Config) {
			c.RuntimeConfig = json.RawMessage(`{"dns":{"Servers":["10.96.0.10"]}}`)
			c.Resolvers = []string{"10.96.0.10"}
		})},
		"annotations": {`,"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"}}`, want(func(c *Config) {
			c.RuntimeConfig = json.RawMessage(`{"io.kubernetes.cri.pod-annotations":{"a":"b"}}`)
		})},
		"labels": {`,"args":{"cni":{"labels":[{"key":"app","value":"web"},{"key":"tier","value":""}]},"other":{"x":1}}`, want(func(c *Config) {
			c.Labels = map[string]string{"app": "web", "tier": ""}
		})},
		"GC": {`,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],"cni.dev/attachments":[]`, want(func(c *Config) {
			c.ValidSet, c.Valid = true, []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}
		})},
		"GC, nothing valid":   {`,"cni.dev/valid-attachments":[]`, want(func(c *Config) { c.ValidSet, c.Valid = true, []types.GCAttachment{} })},
		"GC, null is no list": {`,"cni.dev/valid-attachments":null`, want(func(*Config) {})},
		"what others add":     {`,"capabilities":{"dns":true},"dns":{},"ipam":{},"ipMasq":false,"deviceID":"0000:00:01.0"`, want(func(*Config) {})},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseConfig([]byte("{" + defaults + tc.in + "}"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBadConfig(t *testing.T) {
	for in, want := range map[string]string{
		`"socket":"api.sock"`:      `socket "api.sock": want an absolute path`,
		`"socket":5`:               `socket 5: want a string`,
		`"failurePolicy":"ignore"`: `failurePolicy "ignore": want closed or open`,
		`"failurePolicy":"Open"`:   `failurePolicy "Open": want closed or open`,
		`"timeout":"10"`:           `timeout "10": want a duration such as "10s"`,
		`"timeout":10`:             `timeout 10: want a string`,
		`"timeout":"0s"`:           `timeout "0s": out of range, more than 0 and at most 5m0s`,
		`"timeout":"1h"`:           `timeout "1h": out of range, more than 0 and at most 5m0s`,
		`"pendingDir":"pending"`:   `pendingDir "pending": want an absolute path`,
		`"failurepolicy":"open"`:   `"failurepolicy": unknown key; ours are socket, failurePolicy, timeout, pendingDir`,
		`"runtimeConfig":[]`:       `runtimeConfig: a JSON array does not fit there`,
		`"runtimeConfig":{"dns":{"servers":"10.0.0.1"}}`:            `runtimeConfig.dns.Servers: a JSON string does not fit there`,
		`"args":{"cni":{"labels":[{"value":"x"}]}}`:                 `args.cni.labels: a label without a key`,
		`"cni.dev/valid-attachments":{}`:                            `cni.dev/valid-attachments: a JSON object does not fit there`,
		`"cni.dev/valid-attachments":[{"ifname":"eth0"}]`:           `cni.dev/valid-attachments[0]: containerID and ifname must both be there`,
		`"timeout":"x","zzz":1,"aaa":2,"failurePolicy":"half-open"`: `failurePolicy "half-open": want closed or open; timeout "x": want a duration such as "10s"; "aaa": unknown key; ours are socket, failurePolicy, timeout, pendingDir; "zzz": unknown key; ours are socket, failurePolicy, timeout, pendingDir`,
	} {
		c, err := ParseConfig([]byte("{" + defaults + "," + in + "}"))
		if want = `network "pods": ` + want; err == nil || err.Code != types.ErrInvalidNetworkConfig || err.Msg != want {
			t.Errorf("%s\ngot  %v\nwant %s", in, err, want)
		}
		if c == nil || c.Open || c.ValidSet || c.Timeout != defaultTimeout {
			t.Errorf("%s: what is wrong must leave the default: %+v", in, c)
		}
	}
	for _, in := range []string{``, `[]`, `"x"`, `{`} {
		if c, err := ParseConfig([]byte(in)); c != nil || err == nil || err.Code != types.ErrDecodingFailure {
			t.Errorf("%q: %v, %v", in, c, err)
		}
	}
}

func TestParseArgs(t *testing.T) {
	for in, want := range map[string]string{
		``: `null`,
		`K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;IgnoreUnknown=1`: `{"IgnoreUnknown":"1","K8S_POD_NAME":"web-1","K8S_POD_NAMESPACE":"shop"}`,
		`IP=10.0.0.1;`:  `{"IP":"10.0.0.1"}`,
		`A=x=y;B=`:      `{"A":"x=y","B":""}`,
		`IgnoreUnknown`: `CNI_ARGS: "IgnoreUnknown": want KEY=VALUE`,
		`A=1;=2`:        `CNI_ARGS: "=2": want KEY=VALUE`,
		`A=1;A=2`:       `CNI_ARGS: A: given twice`,
	} {
		m, err := ParseArgs(in)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			b, _ := json.Marshal(m)
			got = string(b)
		}
		if got != want {
			t.Errorf("%q\ngot  %s\nwant %s", in, got, want)
		}
	}
}

// FuzzConfig: whatever a runtime sends, what comes out keeps its promises.
func FuzzConfig(f *testing.F) {
	f.Add("{"+defaults+`,"socket":"/s","failurePolicy":"open","timeout":"1s","args":{"cni":{"labels":[{"key":"a","value":"b"}]}}}`, "A=1;B=2")
	f.Add("{"+defaults+`,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}],"runtimeConfig":{"dns":{"servers":["1.1.1.1"]}}}`, ";")
	f.Add("{"+defaults+`,"prevResult":{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"version":"4","address":"10.0.0.1/24","interface":0}]}}`, "")
	f.Add("{"+defaults+`,"prevResult":{"cniVersion":"1.1.0","interfaces":[null],"ips":[{"address":"fd00::1/64","interface":-1}]}}`, "x")
	f.Fuzz(func(t *testing.T, stdin, args string) {
		if m, err := ParseArgs(args); err == nil && len(m) > strings.Count(args, ";")+1 {
			t.Errorf("%q: %v", args, m)
		}
		c, err := ParseConfig([]byte(stdin))
		if c == nil {
			if err == nil {
				t.Fatal("neither a configuration nor an error")
			}
			return
		}
		if !strings.HasPrefix(c.Socket, "/") || !strings.HasPrefix(c.PendingDir, "/") || c.Timeout <= 0 || c.Timeout > maxTimeout {
			t.Errorf("not usable: %+v", c)
		}
		if c.PrevResult == nil {
			return
		}
		raw, rerr := resultIn(c.PrevResult, c.Version)
		if rerr != nil {
			return
		}
		if ifs, _, err := interfaces(raw, c.Version, "/no/such/netns", "eth0"); err == nil && len(ifs) == 0 {
			t.Error("a result without an interface")
		}
	})
}
