package daemon

import (
	"context"
	"net/netip"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Rules is what a workload's namespace holds, in nft's syntax, with addresses named in comments.
func (d *Daemon) Rules(_ context.Context, name string, guard bool) (string, error) {
	w := d.find(name)
	if w == nil {
		return "", api.Errorf(api.NotFound, "workload %q: none of that id or namespace/name runs on this node", name)
	}
	held := w.inForce()
	if !held.valid {
		return "", api.Errorf(api.NotReady, "workload %s: its rules are not in force yet", w)
	}
	rs := firewall.Compile(held.spec)
	view := d.index.View()
	var b strings.Builder
	for _, t := range rs.Tables {
		if t.Place == firewall.AtNode && !guard {
			continue
		}
		if t.Place == firewall.AtNode {
			b.WriteString("\n# in the node's namespace\n")
		}
		for line := range strings.Lines(t.String()) {
			b.WriteString(nameLine(view, line))
		}
	}
	return b.String(), nil
}

// nameLine adds a comment to a line of a set's elements: whose address it is.
func nameLine(view *identity.View, line string) string {
	text := strings.TrimPrefix(strings.TrimSpace(line), "elements = { ")
	first, _, _ := strings.Cut(text, " ")
	first = strings.Trim(first, ",")
	addr, err := netip.ParseAddr(first)
	if err != nil {
		return line
	}
	p := view.Peer(addr)
	name := p.String()
	switch p.Kind {
	case identity.World:
		return line
	case identity.Pod:
		name = p.Workload.Namespace + "/" + p.Workload.Name
	case identity.VIP:
		name = "Service " + p.Network
	}
	return strings.TrimSuffix(line, "\n") + " # " + name + "\n"
}
