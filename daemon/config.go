package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// maxConfig bounds the configuration file, in bytes; a real one has a few hundred.
const maxConfig = 1 << 20

// Config is what the daemon's YAML file may say. Every key has a default (see [DefaultConfig]); a
// key that is not listed here is an error.
type Config struct {
	Socket             string                    // socket: unix socket of the API
	Node               string                    // node: this node's name; default the host's name
	StateDir           string                    // stateDir: folder of the store
	PolicyDir          string                    // policyDir: watched folder of policies; "" watches none
	InventoryDir       string                    // inventoryDir: watched folder of Kubernetes manifests; "" watches none
	DefaultMode        policy.Mode               // defaultMode: mode of a service that was given none
	PromoteConnections uint64                    // promoteConnections: how many a shadow must see pass before policy promote takes it
	PromoteAge         time.Duration             // promoteAge: and for how long it must be there
	AllowNode          bool                      // allowNode: the node may always talk to its own workloads
	AllowDNS           bool                      // allowDNS: workloads may always ask their resolvers
	OnDeny             OnDeny                    // onDeny: Drop or Reject, for both directions or a mapping of egress and ingress: how denials are told where no policy says it
	MaxEntries         int                       // maxEntries: allowed and denied (peer, protocol, port) that one workload may hold
	DropUnreadAnswers  bool                      // dropUnreadAnswers: DNS answers that nobody could read are dropped where policy names names; else they pass
	Namespace          string                    // namespace: of workloads whose runtime knows none
	Containerd         string                    // containerd: socket of containerd, asked for labels of containers; "" is never asked
	Podman             string                    // podman: socket of Podman's REST service, likewise
	Resolvers          []netip.Addr              // resolvers: resolvers of workloads beside what the runtime says
	Networks           map[string][]netip.Prefix // networks: named networks that policies and the graph use
	PodBlocks          []netip.Prefix            // podBlocks: the cluster's pod ranges
	AlertLog           string                    // alertLog: file of JSON lines; "" writes none
	AlertLogSize       int64                     // alertLogSize: MiB at which the file is rotated
	LabelOrder         []string                  // labelOrder: labels that name a service, first found wins; empty: the built-in order
	LogLevel           string                    // logLevel: debug, info, warn, error
	Holder             string                    // holder: unix socket of bulkheadd holder, which keeps containers from changing their rules while the daemon is away; "" does without
	Group              string                    // group: numeric id or name of the group that may use the socket; "" root only
	Cluster            *ClusterConfig            // cluster: whom it is of one mind with; absent: the node is alone
}

// DefaultConfig is what holds without a file.
func DefaultConfig() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return Config{
		Socket:             api.DefaultSocket,
		Node:               host,
		StateDir:           "/var/lib/bulkhead",
		PolicyDir:          "/etc/bulkhead/policies",
		InventoryDir:       "/etc/bulkhead/inventory",
		DefaultMode:        policy.Learn,
		PromoteConnections: 1000,
		PromoteAge:         time.Hour,
		AllowNode:          true,
		AllowDNS:           true,
		OnDeny:             OnDeny{policy.Drop, policy.Drop},
		MaxEntries:         1 << 18,
		Namespace:          "default",
		Containerd:         "/run/containerd/containerd.sock",
		Podman:             "/run/podman/podman.sock",
		AlertLog:           "/var/log/bulkhead/alerts.jsonl",
		AlertLogSize:       64,
		LogLevel:           "info",
		Holder:             "/run/bulkhead-holder/holder.sock",
	}
}

// fields names every key and where its value goes.
func (c *Config) fields() map[string]any {
	return map[string]any{
		"socket": &c.Socket, "node": &c.Node, "stateDir": &c.StateDir, "policyDir": &c.PolicyDir,
		"inventoryDir": &c.InventoryDir, "defaultMode": &c.DefaultMode,
		"promoteConnections": &c.PromoteConnections, "promoteAge": &c.PromoteAge,
		"allowNode": &c.AllowNode, "allowDNS": &c.AllowDNS, "dropUnreadAnswers": &c.DropUnreadAnswers, "onDeny": &c.OnDeny, "maxEntries": &c.MaxEntries, "namespace": &c.Namespace,
		"containerd": &c.Containerd, "podman": &c.Podman,
		"resolvers": &c.Resolvers, "networks": &c.Networks, "podBlocks": &c.PodBlocks,
		"alertLog": &c.AlertLog, "alertLogSize": &c.AlertLogSize, "labelOrder": &c.LabelOrder,
		"logLevel": &c.LogLevel, "holder": &c.Holder, "group": &c.Group,
		"cluster": &c.Cluster,
	}
}

// LoadConfig reads the file over the defaults. Errors: all of them, joined, each
// "file:line:column: key: what".
func LoadConfig(file string) (Config, error) {
	info, err := os.Stat(file)
	if err != nil {
		return Config{}, err
	}
	if info.Size() > maxConfig {
		return Config{}, fmt.Errorf("%s: %d bytes, bound %d", file, info.Size(), maxConfig)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Config{}, err
	}
	return ParseConfig(file, data)
}

// ParseConfig reads a configuration from data; name is for messages.
func ParseConfig(name string, data []byte) (Config, error) {
	c := DefaultConfig()
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		// A syntax error knows its line only: "yaml: line 3: what".
		text := yamlMessage(err)
		if line, what, found := strings.Cut(text, ": "); found && strings.HasPrefix(line, "line ") {
			return Config{}, fmt.Errorf("%s:%s: %s", name, line[len("line "):], what)
		}
		return Config{}, fmt.Errorf("%s: %s", name, text)
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return c, c.check(name)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return Config{}, at(name, root, "want a mapping of keys to values")
	}
	if errs := decodeFields(name, "", root, c.fields()); len(errs) > 0 {
		return Config{}, errors.Join(errs...)
	}
	return c, c.check(name)
}

// decodeFields reads a mapping of the keys in fields; prefix is put before a key in messages.
func decodeFields(name, prefix string, mapping *yaml.Node, fields map[string]any) []error {
	var errs []error
	seen := map[string]bool{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		target, known := fields[key.Value]
		switch {
		case !known:
			errs = append(errs, at(name, key, "%s: unknown key; known are %s", prefix+key.Value, strings.Join(keys(fields), ", ")))
		case seen[key.Value]:
			errs = append(errs, at(name, key, "%s: given twice", prefix+key.Value))
		default:
			errs = append(errs, decode(name, prefix+key.Value, value, target)...)
		}
		seen[key.Value] = true
	}
	return errs
}

// decode fills target from value, element by element where it is a list, so that a message points
// at the element.
func decode(name, key string, value *yaml.Node, target any) []error {
	var errs []error
	element := func(node *yaml.Node, into any) {
		if err := node.Decode(into); err != nil {
			errs = append(errs, at(name, node, "%s: %s", key, yamlMessage(err)))
		}
	}
	switch t := target.(type) {
	case *[]netip.Addr:
		*t = decodeList(value, element, func(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") })
	case *[]netip.Prefix:
		*t = decodeList(value, element, netip.Prefix.Masked)
	case *[]string:
		*t = decodeList(value, element, func(s string) string { return s })
	case *[]PublicKey:
		*t = decodeList(value, element, func(k PublicKey) PublicKey { return k })
	case **ClusterConfig:
		return decodeCluster(name, key, value, t)
	case *map[string][]netip.Prefix:
		if value.Kind != yaml.MappingNode {
			return []error{at(name, value, "%s: want a mapping of names to lists of CIDRs", key)}
		}
		*t = map[string][]netip.Prefix{}
		for i := 0; i+1 < len(value.Content); i += 2 {
			(*t)[value.Content[i].Value] = decodeList(value.Content[i+1], element, netip.Prefix.Masked)
		}
	default:
		element(value, target)
	}
	return errs
}

func decodeList[T any](list *yaml.Node, element func(*yaml.Node, any), clean func(T) T) []T {
	if list.Kind != yaml.SequenceNode {
		var all []T
		element(list, &all)
		return all
	}
	out := make([]T, 0, len(list.Content))
	for _, node := range list.Content {
		var v T
		element(node, &v)
		out = append(out, clean(v))
	}
	return out
}

// check refuses values that no part of the daemon could work with.
func (c Config) check(name string) error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %s", name, key, fmt.Sprintf(format, args...)))
	}
	for _, p := range []struct {
		key, path string
		required  bool
	}{
		{"socket", c.Socket, true}, {"stateDir", c.StateDir, true}, {"policyDir", c.PolicyDir, false},
		{"inventoryDir", c.InventoryDir, false}, {"alertLog", c.AlertLog, false},
		{"containerd", c.Containerd, false}, {"podman", c.Podman, false},
	} {
		if p.path == "" && p.required {
			bad(p.key, "empty; want a path")
		} else if p.path != "" && !filepath.IsAbs(p.path) {
			bad(p.key, "%q: want an absolute path", p.path)
		}
	}
	// sun_path holds 108 bytes with the final zero (unix(7)); the server makes the socket under a name
	// that is 4 longer.
	if len(c.Socket) > 103 {
		bad("socket", "%d bytes long; at most 103", len(c.Socket))
	}
	if c.Node == "" {
		bad("node", "empty; want this node's name")
	}
	if c.Namespace == "" || strings.ContainsAny(c.Namespace, "/ \t\n") {
		bad("namespace", "%q: want a name without slash or space", c.Namespace)
	}
	if c.MaxEntries < 1 {
		bad("maxEntries", "%d: want 1 or more", c.MaxEntries)
	}
	if c.AlertLogSize < 1 {
		bad("alertLogSize", "%d: want 1 or more (MiB)", c.AlertLogSize)
	}
	if c.PromoteAge < 0 {
		bad("promoteAge", "%v: want a span of 0 or more, such as 1h", c.PromoteAge)
	}
	if _, err := ParseLevel(c.LogLevel); err != nil {
		bad("logLevel", "%s", err)
	}
	c.Cluster.check(c.Node, bad)
	return errors.Join(errs...)
}

func at(name string, node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: %s", name, node.Line, node.Column, fmt.Sprintf(format, args...))
}

// yamlMessage takes the library's prefix and line off: the place is said already.
func yamlMessage(err error) string {
	var te *yaml.TypeError
	text := err.Error()
	if errors.As(err, &te) && len(te.Errors) > 0 {
		text = te.Errors[0]
		if _, after, found := strings.Cut(text, ": "); found && strings.HasPrefix(text, "line ") {
			text = after
		}
		return text
	}
	return strings.TrimPrefix(text, "yaml: ")
}

func keys(fields map[string]any) []string {
	out := make([]string, 0, len(fields))
	for k := range fields {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
