package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// What this plugin chose.
const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 5 * time.Minute // a kubelet gives up on a pod's network after about four
	maxSocketPath  = 107             // bytes; sun_path of unix(7) without its NUL
)

// Config is the plugin's section of a conflist, with what the runtime adds to it:
//
//	{ "type": "bulkhead-cni",
//	  "socket": "/run/bulkhead/api.sock",   the daemon's socket
//	  "failurePolicy": "closed",            closed: without the daemon ADD fails, and the runtime tries again
//	                                        open: it succeeds, is journalled, and the daemon adopts it on return
//	  "timeout": "10s",                     for one call to the daemon; a Go duration up to 5m
//	  "pendingDir": "/run/bulkhead/pending",  the journal of failurePolicy open; default: beside the socket
//	  "capabilities": { "io.kubernetes.cri.pod-annotations": true, "dns": true } }
//
// A key that is neither ours nor the specification's is an error, for a misspelt key would
// silently mean its default.
type Config struct {
	Version    string // of the request; the result must be in it
	Network    string
	Socket     string
	Open       bool // failurePolicy
	Timeout    time.Duration
	PendingDir string

	RuntimeConfig json.RawMessage   // capability arguments, as the runtime sent them
	Resolvers     []string          // of the dns capability
	Labels        map[string]string // of args.cni.labels, as CNI's CONVENTIONS.md has them
	PrevResult    json.RawMessage   // nil when there is none

	Valid    []types.GCAttachment // GC: attachments that live
	ValidSet bool                 // GC: the list was there; without it nothing may be concluded
}

// foreignKeys may stand in our section without being ours: the specification's, what libcni adds,
// and what Multus adds to every plugin it delegates to.
var foreignKeys = []string{
	"cniVersion", "name", "type", "args", "capabilities", "dns", "ipam", "ipMasq", "prevResult", "runtimeConfig",
	"deviceID", "pciBusID",
}

var ownKeys = []string{"socket", "failurePolicy", "timeout", "pendingDir"}

// ParseConfig reads the section. The Config is usable, with the default where a key is wrong,
// whenever it is not nil: DEL goes on with it. The error is code 7 (invalid network config) and
// names all wrong keys, or code 6 when the text is no JSON object.
func ParseConfig(stdin []byte) (*Config, *types.Error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return nil, fail(types.ErrDecodingFailure, err, "the network configuration is not a JSON object")
	}
	c := &Config{Socket: api.DefaultSocket, Timeout: defaultTimeout}
	p := keyParser{keys: keys}
	p.str("cniVersion", &c.Version)
	p.str("name", &c.Network)
	p.socket(c)
	p.failurePolicy(c)
	p.timeout(c)
	c.PendingDir = PendingDir(c.Socket)
	p.pendingDir(c)
	p.runtimeConfig(c)
	p.labels(c)
	p.attachments(c)
	if raw := keys["prevResult"]; !absent(raw) {
		c.PrevResult = raw
	}
	p.unknown()
	if p.errs == nil {
		return c, nil
	}
	msgs := make([]string, len(p.errs))
	for i, err := range p.errs {
		msgs[i] = err.Error()
	}
	return c, fail(types.ErrInvalidNetworkConfig, nil, "network %q: %s", c.Network, strings.Join(msgs, "; "))
}

// keyParser reads one key after another and keeps what is wrong with each.
type keyParser struct {
	keys map[string]json.RawMessage
	errs []error
}

func (p *keyParser) errorf(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || bytes.Equal(raw, []byte("null")) }

// str leaves *v alone when the key is absent or wrong, and says whether it was set.
func (p *keyParser) str(key string, v *string) bool {
	raw := p.keys[key]
	if absent(raw) {
		return false
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		p.errorf("%s %s: want a string", key, short(raw))
		return false
	}
	*v = s
	return true
}

func (p *keyParser) socket(c *Config) {
	s := c.Socket
	switch {
	case !p.str("socket", &s):
	case !filepath.IsAbs(s):
		p.errorf("socket %q: want an absolute path", s)
	case len(s) > maxSocketPath:
		p.errorf("socket %q: %d bytes, at most %d", s, len(s), maxSocketPath)
	default:
		c.Socket = s
	}
}

func (p *keyParser) failurePolicy(c *Config) {
	s := "closed"
	p.str("failurePolicy", &s)
	if c.Open = s == "open"; !c.Open && s != "closed" {
		p.errorf("failurePolicy %q: want closed or open", s)
	}
}

func (p *keyParser) timeout(c *Config) {
	var s string
	if !p.str("timeout", &s) {
		return
	}
	switch d, err := time.ParseDuration(s); {
	case err != nil:
		p.errorf(`timeout %q: want a duration such as "10s"`, s)
	case d <= 0 || d > maxTimeout:
		p.errorf("timeout %q: out of range, more than 0 and at most %v", s, maxTimeout)
	default:
		c.Timeout = d
	}
}

func (p *keyParser) pendingDir(c *Config) {
	s := c.PendingDir
	if p.str("pendingDir", &s) && !filepath.IsAbs(s) {
		p.errorf("pendingDir %q: want an absolute path", s)
		return
	}
	c.PendingDir = filepath.Clean(s)
}

func (p *keyParser) runtimeConfig(c *Config) {
	raw := p.keys["runtimeConfig"]
	if absent(raw) {
		return
	}
	var rc struct {
		// The convention says "servers"; containerd's library writes its Go field's name, which
		// matches as well, since encoding/json does not mind case.
		DNS struct{ Servers []string } `json:"dns"`
	}
	if err := json.Unmarshal(raw, &rc); err != nil {
		p.errs = append(p.errs, misfit("runtimeConfig", err))
		return
	}
	c.RuntimeConfig, c.Resolvers = raw, rc.DNS.Servers
}

func (p *keyParser) labels(c *Config) {
	raw := p.keys["args"]
	if absent(raw) {
		return
	}
	var args struct {
		CNI struct {
			Labels []struct{ Key, Value string } `json:"labels"`
		} `json:"cni"`
	}
	if err := json.Unmarshal(raw, &args); err != nil {
		p.errs = append(p.errs, misfit("args", err))
		return
	}
	for _, l := range args.CNI.Labels {
		if l.Key == "" {
			p.errorf("args.cni.labels: a label without a key")
			continue
		}
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[l.Key] = l.Value
	}
}

func (p *keyParser) attachments(c *Config) {
	raw := p.keys["cni.dev/valid-attachments"]
	if absent(raw) {
		return // null too: a runtime that forgot its list must not lose all it has
	}
	if err := json.Unmarshal(raw, &c.Valid); err != nil {
		p.errs = append(p.errs, misfit("cni.dev/valid-attachments", err))
		return
	}
	for i, a := range c.Valid {
		if a.ContainerID == "" || a.IfName == "" {
			p.errorf("cni.dev/valid-attachments[%d]: containerID and ifname must both be there", i)
			return
		}
	}
	c.ValidSet = true
}

// unknown finds keys that nobody reads.
func (p *keyParser) unknown() {
	var names []string
	for k := range p.keys {
		if !slices.Contains(foreignKeys, k) && !slices.Contains(ownKeys, k) && !strings.HasPrefix(k, "cni.dev/") {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		p.errorf("%q: unknown key; ours are %s", k, strings.Join(ownKeys, ", "))
	}
}

// misfit says in the words of the configuration, not of our types, what does not fit where.
func misfit(key string, err error) error {
	var e *json.UnmarshalTypeError
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", key, err)
	}
	if e.Field != "" {
		key += "." + e.Field
	}
	return fmt.Errorf("%s: a JSON %s does not fit there", key, e.Value)
}

// short cuts what is quoted in an error.
func short(raw json.RawMessage) string {
	if len(raw) > 40 {
		return string(raw[:40]) + "…"
	}
	return string(raw)
}

// ParseArgs reads CNI_ARGS, "K1=V1;K2=V2". Every key is taken: what is known to whom is the
// daemon's affair.
func ParseArgs(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	args := map[string]string{}
	for _, pair := range strings.Split(s, ";") {
		if pair == "" {
			continue // a semicolon at the end
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("CNI_ARGS: %q: want KEY=VALUE", pair)
		}
		if _, twice := args[k]; twice {
			return nil, fmt.Errorf("CNI_ARGS: %s: given twice", k)
		}
		args[k] = v
	}
	return args, nil
}

var errNoPrevResult = errors.New("no prevResult; bulkhead-cni makes no interface, so it stands after the plugin that does")
