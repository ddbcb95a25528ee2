package alert

import (
	"fmt"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// explain is the command that shows why a connection has the verdict it has.
func explain(k flow.Key) string {
	return fmt.Sprintf("bulkhead explain %s %s %s/%d", k.Client, k.Server, strings.ToLower(k.Protocol.String()), k.Port)
}

// allowing is the YAML line that would allow the connection at the end that denies it, or what to
// look at where one line cannot.
func allowing(c *Case, k flow.Key, dir policy.Direction, side policy.SideDecision) string {
	if side.Rule != "" {
		return fmt.Sprintf("if it belongs there, narrow rule %s, which denies it; why: %s", side.Rule, explain(k))
	}
	peer, end, word, svc := c.Client, k.Client, "from", k.Server.Service
	if dir == policy.Egress {
		peer, end, word, svc = c.Server, k.Server, "to", k.Client.Service
		if len(c.Backends) > 0 {
			peer = identity.Peer{Kind: identity.Pod, Workload: c.Backends[0].Workload}
		}
	}
	where := "a policy that selects " + svc.String()
	if len(side.Policies) > 0 {
		where = "policy " + side.Policies[0]
	}
	selector := selecting(peer, end, svc.Namespace)
	if selector == "" || !k.Protocol.HasPorts() {
		return "if it belongs there, allow it in " + where + "; why it is denied: " + explain(k)
	}
	return fmt.Sprintf("if it belongs there, add to %s of %s: - {%s: [%s], ports: [{protocol: %s, port: %d}]}",
		dir, where, word, selector, k.Protocol, k.Port)
}

// selecting is the peer of a rule, seen from namespace, that names an end.
func selecting(p identity.Peer, e flow.End, namespace string) string {
	switch e.Kind {
	case identity.Node, identity.Resolver, identity.Network: // only the native kind has these names
		return fmt.Sprintf("{network: %s}", e)
	case identity.World:
		if e.Addr.IsValid() {
			return fmt.Sprintf("{ipBlock: {cidr: %s/%d}}", e.Addr, e.Addr.BitLen())
		}
	case identity.Pod:
		ns := ""
		if e.Service.Namespace != namespace {
			ns = fmt.Sprintf("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}, ", e.Service.Namespace)
		}
		if l := serviceLabel(p.Workload, e.Service.Name); l != "" {
			return fmt.Sprintf("{%spodSelector: {matchLabels: {%s}}}", ns, l)
		}
	}
	return ""
}

// serviceLabel is the label that gave a workload's service its name: "app: web".
func serviceLabel(w *identity.Workload, name string) string {
	if w == nil {
		return ""
	}
	for _, key := range identity.DefaultLabelOrder {
		if w.Labels[key] == name {
			return key + ": " + name
		}
	}
	return ""
}
