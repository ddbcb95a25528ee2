package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Probe is one question of probes.json: may Client connect to Server? Ends are "namespace/pod", an
// address, a node's name or a Service.
type Probe struct {
	Client   string
	Server   string
	Protocol identity.Protocol // for ICMP whatever the family: ICMP
	Port     uint16            // the type for ICMP
	PortName string            // instead of Port: one of the server's container ports, or of the Service's ports

	place  string  // "probes.json:14"
	fields []field // as they came, those that an answer has left out
}

type field struct {
	key   string // with its quotes, as it was written
	value json.RawMessage
}

// maxProbeErrors is how many mistakes of one file are told.
const maxProbeErrors = 20

// answerKeys are what an answer adds; a question that is an old answer loses them.
var answerKeys = []string{"ingress", "egress", "verdict", "onDeny", "reasons", "latency_ms", "error"}

// ParseProbes reads probes.json: an array of objects
//
//	{"client": "ns/pod or IP", "server": "ns/pod or IP", "protocol": "TCP|UDP|SCTP|ICMP", "port": 80 or "name"}
//
// without protocol: TCP; for ICMP the port is the type, without one an echo request. Other keys are
// kept. Errors read "name:line: probe 3: what", counted from 0 as the lab does; all are joined, and
// then there are no probes.
func ParseProbes(name string, data []byte) ([]Probe, error) {
	r := &probeReader{name: name, data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	first, err := r.dec.Token()
	if err != nil {
		return nil, r.syntax(err)
	}
	if first != json.Delim('[') {
		return nil, r.errorf(r.dec.InputOffset(), "want an array of probes, got %v", first)
	}
	var out []Probe
	var errs []error
	for r.dec.More() {
		var raw json.RawMessage
		if err := r.dec.Decode(&raw); err != nil {
			return nil, errors.Join(append(errs, r.syntax(err))...)
		}
		place := r.place(r.dec.InputOffset() - int64(len(raw)))
		p, err := parseProbe(raw)
		if p.place = place; err != nil {
			errs = append(errs, fmt.Errorf("%s: probe %d: %w", place, len(out), err))
		}
		if len(errs) >= maxProbeErrors {
			break
		}
		out = append(out, p)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if _, err := r.dec.Token(); err != nil {
		return nil, r.syntax(err)
	}
	if _, err := r.dec.Token(); err == nil {
		return nil, r.errorf(r.dec.InputOffset(), "something follows the array of probes")
	}
	return out, nil
}

// probeReader knows the line of what it reads.
type probeReader struct {
	name string
	data []byte
	dec  *json.Decoder
	line int   // of the byte at
	at   int64 // how far lines were counted
}

// place is asked for ever higher offsets.
func (r *probeReader) place(offset int64) string {
	offset = min(max(offset, r.at), int64(len(r.data)))
	r.line += bytes.Count(r.data[r.at:offset], []byte{'\n'})
	r.at = offset
	return fmt.Sprintf("%s:%d", r.name, r.line)
}

func (r *probeReader) errorf(offset int64, format string, args ...any) error {
	return fmt.Errorf("%s: %w", r.place(offset), fmt.Errorf(format, args...))
}

func (r *probeReader) syntax(err error) error {
	offset := int64(len(r.data))
	if e := (*json.SyntaxError)(nil); errors.As(err, &e) {
		offset = max(e.Offset-1, 0)
	} else {
		err = errors.New("the file ends within the array of probes")
	}
	if len(bytes.TrimSpace(r.data)) == 0 {
		err = errors.New("the file is empty; want an array of probes")
	}
	return r.errorf(offset, "%w", err)
}

// parseProbe reads one object and keeps the order of its keys.
func parseProbe(raw json.RawMessage) (Probe, error) {
	p := Probe{Protocol: identity.TCP}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return p, errors.New("want an object with client, server, protocol and port")
	}
	var port json.RawMessage
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return p, err
		}
		key, _ := t.(string) // keys are strings, or the decoder says so
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return p, err
		}
		if slices.Contains(answerKeys, key) {
			continue
		}
		quoted, err := json.Marshal(key)
		if err != nil {
			return p, err
		}
		if slices.ContainsFunc(p.fields, func(f field) bool { return f.key == string(quoted) }) {
			return p, fmt.Errorf("%s is given twice", key)
		}
		var tight bytes.Buffer
		if err := json.Compact(&tight, value); err != nil {
			return p, err
		}
		p.fields = append(p.fields, field{string(quoted), tight.Bytes()})
		switch key {
		case "client":
			err = text(value, &p.Client)
		case "server":
			err = text(value, &p.Server)
		case "protocol":
			err = p.readProtocol(value)
		case "port":
			port = value
		}
		if err != nil {
			return p, fmt.Errorf("%s: %w", key, err)
		}
	}
	switch {
	case p.Client == "":
		return p, errors.New("client is missing; want namespace/pod or an address")
	case p.Server == "":
		return p, errors.New("server is missing; want namespace/pod or an address")
	}
	if err := p.readPort(port); err != nil {
		return p, fmt.Errorf("port: %w", err)
	}
	return p, nil
}

func text(value json.RawMessage, into *string) error {
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("%s: want a string", value)
	}
	return nil
}

func (p *Probe) readProtocol(value json.RawMessage) error {
	var s string
	if err := text(value, &s); err != nil || s == "" {
		return err
	}
	protocol, err := identity.ParseProtocol(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q: want TCP, UDP, SCTP or ICMP", s)
	case protocol == identity.ICMPv6:
		protocol = identity.ICMP // which of the two it is, the addresses say
	case !protocol.HasPorts() && !protocol.IsICMP():
		return fmt.Errorf("%q: want TCP, UDP, SCTP or ICMP", s)
	}
	p.Protocol = protocol
	return nil
}

// Echo requests of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	echo4 = 8
	echo6 = 128
)

// readPort takes 80, "80" and "http". An ICMP probe needs none.
func (p *Probe) readPort(value json.RawMessage) error {
	given := len(value) > 0 && string(value) != "null"
	if !given && p.Protocol.IsICMP() {
		p.Port = echo4
		return nil
	}
	if !given {
		return errors.New("missing; want a number from 1 to 65535 or a name")
	}
	s := string(value)
	if value[0] == '"' {
		if err := text(value, &s); err != nil {
			return err
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	low, high := int64(1), int64(65535)
	if p.Protocol.IsICMP() {
		low, high = 0, 255
	}
	switch {
	case err == nil && (n < low || n > high):
		return fmt.Errorf("%s: out of range %d-%d", s, low, high)
	case err == nil:
		p.Port = uint16(n)
	case p.Protocol.IsICMP() || value[0] != '"' || s == "":
		return fmt.Errorf("%s: want a number from %d to %d or a name", value, low, high)
	default:
		p.PortName = s
	}
	return nil
}

// Answer is what policy says to a probe.
type Answer struct {
	Decision policy.Decision
	// Err says why there can be no verdict: nobody of that name (ErrUnknown), no family in common, a
	// port's name that the server has not.
	Err error
}

// Ask puts a probe to a set.
func (c *Cluster) Ask(set *policy.Set, p *Probe) Answer {
	d, err := c.ask(set, p)
	return Answer{d, err}
}

// Place is where the probe was read: "probes.json:14".
func (p *Probe) Place() string { return p.place }

func (c *Cluster) ask(set *policy.Set, p *Probe) (policy.Decision, error) {
	var none policy.Decision
	client, err := c.probeEnd(p.Client)
	if err != nil {
		return none, fmt.Errorf("client: %w", err)
	}
	server, err := c.probeEnd(p.Server)
	if err != nil {
		return none, fmt.Errorf("server: %w", err)
	}
	if client.VIP {
		return none, fmt.Errorf("client: %s: a Service's address opens no connections", p.Client)
	}
	from, to, ok := Family(client, server)
	if !ok {
		return none, errors.New("client and server have no address family in common")
	}
	protocol, port := onWire(p.Protocol, p.Port, to)
	if p.PortName != "" {
		if port = c.portNamed(server, to, p.PortName, protocol); port == 0 {
			return none, fmt.Errorf("port %s: %s has no %s port of that name", p.PortName, p.Server, protocol)
		}
	}
	return c.Judge(set, client, server, from, to, protocol, port), nil
}

// onWire turns ICMP into that of the family; an echo request stays one.
func onWire(protocol identity.Protocol, port uint16, to netip.Addr) (identity.Protocol, uint16) {
	switch {
	case !protocol.IsICMP():
		return protocol, port
	case to.Is4() && protocol == identity.ICMPv6 && port == echo6:
		return identity.ICMP, echo4
	case to.Is4():
		return identity.ICMP, port
	case protocol == identity.ICMP && port == echo4:
		return identity.ICMPv6, echo6
	}
	return identity.ICMPv6, port
}

// portNamed looks a port's name up at the server; 0: it has none.
func (c *Cluster) portNamed(server Member, to netip.Addr, name string, protocol identity.Protocol) uint16 {
	if w := server.Workload; w != nil {
		return w.PortNamed(name, protocol)
	}
	service := c.view.VIPNames[to]
	for i := range c.view.Services {
		s := &c.view.Services[i]
		if s.Namespace+"/"+s.Name != service {
			continue
		}
		for _, p := range s.Ports {
			if p.Name == name && (p.Protocol == protocol || p.Protocol == identity.AnyProtocol && protocol == identity.TCP) {
				return p.Port
			}
		}
	}
	return 0
}

// AppendJSON writes the probe as it came with its answer behind it: egress, ingress and verdict
// ("allow" or "deny"), onDeny where a policy says how a denial is told ("reject" or "drop"), and the
// reasons, or error.
func (a Answer) AppendJSON(b []byte, p *Probe) ([]byte, error) {
	b = append(b, '{')
	for _, f := range p.fields {
		b = append(append(b, f.key...), ':')
		b = append(append(b, f.value...), ',')
	}
	if a.Err != nil {
		return appendText(append(b, `"error":`...), a.Err.Error(), '}')
	}
	b = append(append(b, `"egress":"`...), a.Decision.Egress.Verdict.String()...)
	b = append(append(b, `","ingress":"`...), a.Decision.Ingress.Verdict.String()...)
	b = append(append(b, `","verdict":"`...), a.Decision.Verdict.String()...)
	if o := a.Decision.OnDeny(); o != "" {
		b = append(append(b, `","onDeny":"`...), o...)
	}
	return appendText(append(b, `","reasons":`...), a.Decision.Reasons(), '}')
}

func appendText(b []byte, v any, end byte) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return b, err
	}
	return append(append(b, bytes.TrimSuffix(buf.Bytes(), []byte{'\n'})...), end), nil
}
