package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"github.com/fxamacker/cbor/v2"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// endpoint is what a node tells the others of one of its workloads. Numbers stand for names: there are
// a hundred thousand of them. A number keeps its meaning; who does not know one passes over it.
type endpoint struct {
	Namespace string            `cbor:"1,keyasint"`
	Name      string            `cbor:"2,keyasint"`
	Service   string            `cbor:"3,keyasint,omitempty"` // the name; the namespace is the workload's
	Labels    map[string]string `cbor:"4,keyasint,omitempty"`
	Space     map[string]string `cbor:"5,keyasint,omitempty"` // labels of the namespace, less its name
	Addrs     [][]byte          `cbor:"6,keyasint,omitempty"` // 4 or 16 bytes each
	Ports     []endpointPort    `cbor:"7,keyasint,omitempty"`
}

type endpointPort struct {
	_        struct{} `cbor:",toarray"`
	Name     string
	Protocol uint8
	Port     uint16
}

// What is taken of an endpoint.
const (
	maxEndpointAddrs = 64
	maxEndpointPorts = 256
	maxLabelText     = 512 // bytes of a key or value; Kubernetes has 317 and 63, OCI runtimes no bound
)

// spaceName is the label that every namespace has.
const spaceName = "kubernetes.io/metadata.name"

var endpointEncoder, endpointDecoder = func() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.CoreDetEncOptions().EncMode() // the same workload gives the same bytes
	if err != nil {
		panic(err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxArrayElements: maxEndpointPorts, MaxMapPairs: maxLabels,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return enc, dec
}()

// encodeEndpoint writes a workload of this node down.
func encodeEndpoint(w *identity.Workload) ([]byte, error) {
	e := endpoint{Namespace: w.Namespace, Name: w.Name, Service: w.Service.Name, Labels: w.Labels}
	for k, v := range w.NamespaceLabels {
		if k != spaceName {
			if e.Space == nil {
				e.Space = map[string]string{}
			}
			e.Space[k] = v
		}
	}
	for _, a := range w.Addrs {
		if shared(a) && len(e.Addrs) < maxEndpointAddrs {
			e.Addrs = append(e.Addrs, a.AsSlice())
		}
	}
	for _, p := range w.Ports[:min(len(w.Ports), maxEndpointPorts)] {
		e.Ports = append(e.Ports, endpointPort{Name: p.Name, Protocol: uint8(p.Protocol), Port: p.Port})
	}
	return endpointEncoder.Marshal(&e)
}

// shared says whether an address means the same on every node. Those of one link do not.
func shared(a netip.Addr) bool {
	return a.IsValid() && !a.IsLinkLocalUnicast() && !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast()
}

// decodeEndpoint reads what another node says of a workload of its own. Errors: it is none, or says
// more than a workload can have.
func decodeEndpoint(owner, key string, value []byte) (identity.Workload, error) {
	var e endpoint
	if err := endpointDecoder.Unmarshal(value, &e); err != nil {
		return identity.Workload{}, fmt.Errorf("endpoint %q from %s: %w", key, owner, err)
	}
	if err := e.check(key); err != nil {
		return identity.Workload{}, fmt.Errorf("endpoint %q from %s: %w", key, owner, err)
	}
	w := identity.Workload{
		ID: endpointID(owner, key), Namespace: e.Namespace, Name: e.Name, Node: owner, Labels: e.Labels, Source: identity.SourceGossip,
	}
	if e.Service != "" {
		w.Service = identity.Service{Namespace: e.Namespace, Name: e.Service}
	}
	if len(e.Space) > 0 {
		w.NamespaceLabels = e.Space
	}
	for _, raw := range e.Addrs {
		a, _ := netip.AddrFromSlice(raw) // was checked
		w.Addrs = append(w.Addrs, a)
	}
	for _, p := range e.Ports {
		w.Ports = append(w.Ports, identity.ContainerPort{Name: p.Name, Protocol: identity.Protocol(p.Protocol), Port: p.Port})
	}
	return w, nil
}

func (e *endpoint) check(key string) error {
	if strings.Contains(key, "/") {
		return fmt.Errorf("key %.80q: has a slash", key)
	}
	for what, text := range map[string]string{"key": key, "namespace": e.Namespace, "name": e.Name, "service": e.Service} {
		if text == "" && what != "service" || len(text) > maxLabelText || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%s %.80q: want 1 to %d bytes without control characters", what, text, maxLabelText)
		}
	}
	for _, labels := range []map[string]string{e.Labels, e.Space} {
		for k, v := range labels {
			if len(k) > maxLabelText || len(v) > maxLabelText {
				return fmt.Errorf("label %.40q: more than %d bytes", k, maxLabelText)
			}
		}
	}
	if len(e.Addrs) > maxEndpointAddrs {
		return fmt.Errorf("%d addresses, bound %d", len(e.Addrs), maxEndpointAddrs)
	}
	for _, raw := range e.Addrs {
		if a, ok := netip.AddrFromSlice(raw); !ok || !shared(a) || a != identity.Normal(a) {
			return fmt.Errorf("address %x: none of a workload", raw)
		}
	}
	return nil
}

// endpointID is a workload of another node in the index. Keys have no slash, so no node's name and key
// together can be another's.
func endpointID(owner, key string) string { return owner + "/" + key }
