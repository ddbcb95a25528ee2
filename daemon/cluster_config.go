package daemon

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"
)

// ClusterConfig is what the configuration says under cluster. Without it a node is alone.
type ClusterConfig struct {
	Name          string         // name: the cluster's; nodes of another one are not heard
	KeyFile       string         // keyFile: AES keys in base64, one a line, the first encrypts; "" sends in the clear
	Bind          netip.AddrPort // bind: UDP and TCP
	Advertise     netip.AddrPort // advertise: where others reach it; invalid: found out
	Seeds         []string       // seeds: whom to join
	Trust         []PublicKey    // trust: who may sign policies
	Unsigned      string         // unsigned: accept, alert or refuse policies without a trusted signature
	NodePodBlocks []netip.Prefix // nodePodBlocks: this node's own pod ranges
	StartWait     time.Duration  // startWait: how long a start waits for the nodes of its peers; 0 not at all
	Grace         time.Duration  // grace: how long a dead node's workloads keep their identity
}

// What happens to a policy that no trusted key has signed.
const (
	unsignedAccept = "accept"
	unsignedAlert  = "alert"
	unsignedRefuse = "refuse"
)

// gossipPort is where nodes listen unless told otherwise: memberlist's.
const gossipPort = 7946

// The bounds of spans.
const (
	maxStartWait = 10 * time.Second
	maxGrace     = 24 * time.Hour
)

// PublicKey is an ed25519 key, in base64 as text.
type PublicKey ed25519.PublicKey

// UnmarshalText reads a key of 32 bytes.
func (k *PublicKey) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("key %q: %w", text, err)
	}
	if len(raw) != ed25519.PublicKeySize {
		return fmt.Errorf("key %q: %d bytes, want %d in base64", text, len(raw), ed25519.PublicKeySize)
	}
	*k = raw
	return nil
}

// listenAt is "address:port", or an address with the default port.
type listenAt netip.AddrPort

func (l *listenAt) UnmarshalText(text []byte) error {
	if a, err := netip.ParseAddr(string(text)); err == nil {
		*l = listenAt(netip.AddrPortFrom(a, gossipPort))
		return nil
	}
	at, err := netip.ParseAddrPort(string(text))
	if err != nil {
		return fmt.Errorf("%q: want address or address:port", text)
	}
	*l = listenAt(at)
	return nil
}

func defaultCluster() ClusterConfig {
	return ClusterConfig{
		Bind:      netip.AddrPortFrom(netip.IPv4Unspecified(), gossipPort),
		StartWait: 250 * time.Millisecond,
		Grace:     5 * time.Minute,
	}
}

// fields names every key below cluster and where its value goes.
func (c *ClusterConfig) fields() map[string]any {
	return map[string]any{
		"name": &c.Name, "keyFile": &c.KeyFile, "bind": (*listenAt)(&c.Bind), "advertise": (*listenAt)(&c.Advertise), "seeds": &c.Seeds,
		"trust": &c.Trust, "unsigned": &c.Unsigned, "nodePodBlocks": &c.NodePodBlocks, "startWait": &c.StartWait, "grace": &c.Grace,
	}
}

// decodeCluster reads what stands below cluster.
func decodeCluster(name, key string, value *yaml.Node, into **ClusterConfig) []error {
	if value.Kind != yaml.MappingNode {
		return []error{at(name, value, "%s: want a mapping of keys to values", key)}
	}
	c := defaultCluster()
	*into = &c
	errs := decodeFields(name, key+".", value, c.fields())
	if c.Unsigned == "" {
		c.Unsigned = unsignedAccept
		if len(c.Trust) > 0 {
			c.Unsigned = unsignedRefuse
		}
	}
	return errs
}

// check tells of values that no cluster could work with.
func (c *ClusterConfig) check(node string, bad func(key, format string, args ...any)) {
	if c == nil {
		return
	}
	// memberlist takes a label of 255 bytes, package gossip a name of 253.
	if c.Name == "" || len(c.Name) > 255 {
		bad("cluster.name", "%d bytes; want 1 to 255", len(c.Name))
	}
	if len(node) > 253 || strings.ContainsAny(node, "/ \t\n") {
		bad("node", "%q: want a name of at most 253 bytes without slash or space, the only one of it in the cluster", node)
	}
	if c.KeyFile != "" && !filepath.IsAbs(c.KeyFile) {
		bad("cluster.keyFile", "%q: want an absolute path", c.KeyFile)
	}
	for _, s := range c.Seeds {
		if path, isFile := strings.CutPrefix(s, "file:"); s == "" || isFile && !filepath.IsAbs(path) {
			bad("cluster.seeds", "%q: want host, host:port or file: with an absolute path", s)
		}
	}
	if a := c.Advertise; a.IsValid() && (a.Addr().IsUnspecified() || a.Addr().IsMulticast()) {
		bad("cluster.advertise", "%s: want an address of this node", a)
	}
	if how := []string{unsignedAccept, unsignedAlert, unsignedRefuse}; !slices.Contains(how, c.Unsigned) {
		bad("cluster.unsigned", "%q: want %s", c.Unsigned, strings.Join(how, ", "))
	}
	if c.StartWait < 0 || c.StartWait > maxStartWait {
		bad("cluster.startWait", "%v: want a span of 0 to %v", c.StartWait, maxStartWait)
	}
	if c.Grace < 0 || c.Grace > maxGrace {
		bad("cluster.grace", "%v: want a span of 0 to %v", c.Grace, maxGrace)
	}
}
