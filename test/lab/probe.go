package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Probe is one question of probes.json and its answer. Client and Server are "namespace/pod", an
// address, or a node's name; an address that nobody has becomes a host of the outside network.
// Server may be a Service's address.
type Probe struct {
	Client   string
	Server   string
	Protocol string // TCP (also when empty), UDP, SCTP or ICMP
	Port     Port   // none for ICMP

	Verdict   string  // "allow": an answer came back; "deny": none; empty with Error
	LatencyMS float64 // until the answer, or until we gave up
	Error     string  // why there is no verdict: names nobody has, a protocol the kernel cannot speak
	Answer    string  // who answered, as the listener names itself; not in the file

	extra map[string]json.RawMessage // keys of the file that are not ours are handed back
}

// Port is a number or the name of a container port of the server.
type Port struct {
	Number uint16
	Name   string
}

func (p Port) String() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}

// MarshalJSON writes the number or the name.
func (p Port) MarshalJSON() ([]byte, error) {
	if p.Name != "" {
		return json.Marshal(p.Name)
	}
	return json.Marshal(p.Number)
}

// UnmarshalJSON takes 80, "80" and "http".
func (p *Port) UnmarshalJSON(b []byte) error {
	*p = Port{}
	var s string
	if json.Unmarshal(b, &s) == nil {
		if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			p.Number = uint16(n)
		} else {
			p.Name = s
		}
		return nil
	}
	if err := json.Unmarshal(b, &p.Number); err != nil {
		return fmt.Errorf("port %s: want a number from 1 to 65535 or a name", b)
	}
	return nil
}

// ParseProbes reads probes.json. Errors name the probe by its place in the array, from 0.
func ParseProbes(data []byte) ([]Probe, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("probes: want an array of objects: %w", err)
	}
	out := make([]Probe, len(list))
	for i, raw := range list {
		if err := json.Unmarshal(raw, &out[i]); err != nil {
			return nil, fmt.Errorf("probe %d: %w", i, err)
		}
		if _, err := out[i].protocol(); err != nil {
			return nil, fmt.Errorf("probe %d: %w", i, err)
		}
		if out[i].Client == "" || out[i].Server == "" {
			return nil, fmt.Errorf("probe %d: want client and server", i)
		}
	}
	return out, nil
}

// fields are the keys of the file that are read; answers are the ones that are written.
func (p *Probe) fields() map[string]any {
	return map[string]any{"client": &p.Client, "server": &p.Server, "protocol": &p.Protocol, "port": &p.Port}
}

var answerKeys = []string{"verdict", "latency_ms", "error"}

// UnmarshalJSON reads a question; an answer that is in it already is dropped.
func (p *Probe) UnmarshalJSON(b []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("want an object: %w", err)
	}
	for key, target := range p.fields() {
		if raw, ok := all[key]; ok && string(raw) != "null" {
			if err := json.Unmarshal(raw, target); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		delete(all, key)
	}
	for _, key := range answerKeys {
		delete(all, key)
	}
	p.extra = all
	return nil
}

// MarshalJSON writes the question as it came and the answer behind it, in a fixed order.
func (p Probe) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	write := func(key string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte("null")
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", key, text)
	}
	write("client", p.Client)
	write("server", p.Server)
	if p.Protocol != "" {
		write("protocol", p.Protocol)
	}
	if p.Port != (Port{}) {
		write("port", p.Port)
	}
	for _, key := range slices.Sorted(maps.Keys(p.extra)) {
		write(key, p.extra[key])
	}
	if p.Verdict != "" {
		write("verdict", p.Verdict)
		write("latency_ms", p.LatencyMS)
	}
	if p.Error != "" {
		write("error", p.Error)
	}
	return append(append([]byte{'{'}, b.Bytes()...), '}'), nil
}

func (p *Probe) protocol() (identity.Protocol, error) {
	if p.Protocol == "" {
		return identity.TCP, nil
	}
	proto, err := identity.ParseProtocol(p.Protocol)
	if err == nil && !proto.HasPorts() && !proto.IsICMP() {
		err = fmt.Errorf("protocol %s: want TCP, UDP, SCTP or ICMP", p.Protocol)
	}
	return proto, err
}
