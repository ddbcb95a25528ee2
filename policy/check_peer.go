package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// forms lists the kinds of peer that each kind of policy has in a direction.
func (c *checker) forms(d Direction) []string {
	switch {
	case c.native() && d == Egress:
		return []string{"podSelector", "namespaceSelector", "ipBlock", "network", "service", "dnsName"}
	case c.native():
		return []string{"podSelector", "namespaceSelector", "ipBlock", "network", "service"}
	case c.cluster() && d == Egress:
		return []string{"namespaces", "pods", "nodes", "networks", "domainNames"}
	case c.cluster():
		return []string{"namespaces", "pods"}
	}
	return []string{"podSelector", "namespaceSelector", "ipBlock"}
}

// peer: "ipBlock defines policy on a particular IPBlock. If this field is set then neither of the
// other fields can be." The other forms keep to the same rule.
func (c *checker) peer(path string, d Direction, r Rule, p Peer) {
	var set []string // the forms that are there, the selectors as one
	for _, form := range []struct {
		name  string
		is    bool
		known bool
	}{
		{"podSelector", p.PodSelector != nil || p.NamespaceSelector != nil, true},
		{"ipBlock", p.IPBlock != nil, !c.cluster() || d == Egress},
		{"network", p.Network != "", c.native()},
		{"service", p.Service != nil, c.native()},
		{"dnsName", p.DNSName != "", d == Egress && c.kind != KindNetworkPolicy},
		{"nodes", p.NodeSelector != nil, d == Egress && c.cluster()},
	} {
		if !form.is {
			continue
		}
		if len(set) > 0 {
			c.add(path+"."+form.name, "%s beside %s: a peer is one of them; make them two list items", form.name, beside(set[0]))
		} else if !form.known {
			c.add(path+"."+form.name, "%s: %s of a %s has no such peers", form.name, d, c.kind)
		}
		set = append(set, form.name)
	}
	if len(set) == 0 {
		c.add(path, "the peer is empty; want %s (for everybody leave the list of peers out)", list(c.forms(d)))
	}
	c.peerParts(path, d, r, p)
}

func beside(form string) string {
	if form == "podSelector" {
		return "a selector"
	}
	return form
}

func (c *checker) peerParts(path string, _ Direction, r Rule, p Peer) {
	if p.PodSelector != nil {
		c.selector(path+".podSelector", p.PodSelector)
	}
	if p.NamespaceSelector != nil {
		c.selector(path+".namespaceSelector", p.NamespaceSelector)
	}
	if p.NodeSelector != nil {
		c.selector(path+".nodes", p.NodeSelector)
	}
	if p.Network != "" {
		if m := validation.IsDNS1123Label(p.Network); len(m) > 0 {
			c.add(path+".network", "network %q: %s%s", p.Network, brief(m), didYouMean(p.Network, builtInNetworks))
		}
	}
	if p.IPBlock != nil {
		c.block(path+".ipBlock", p.IPBlock)
	}
	if p.Service != nil {
		c.service(path+".service", p.Service)
	}
	if p.DNSName != "" {
		c.dnsName(path+".dnsName", r, p.DNSName)
	}
}

func (c *checker) service(path string, s *ServiceRef) {
	if s.Name == "" {
		c.add(path, "name is missing; want the Service's name")
	} else if m := validation.IsDNS1035Label(s.Name); len(m) > 0 {
		c.add(path+".name", "service %q: %s", shorten(s.Name), brief(m))
	}
	if m := validation.IsDNS1123Label(s.Namespace); s.Namespace != "" && len(m) > 0 {
		c.add(path+".namespace", "namespace %q: %s", shorten(s.Namespace), brief(m))
	}
}

// dnsNamePattern is ClusterNetworkPolicy's for a DomainName.
var dnsNamePattern = regexp.MustCompile(`^(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`)

// Bounds of RFC 1035, 2.3.4, in octets.
const (
	maxDNSName  = 253
	maxDNSLabel = 63
)

func (c *checker) dnsName(path string, r Rule, name string) {
	switch {
	case len(name) > maxDNSName:
		c.add(path, "DNS name of %d letters; want at most %d", len(name), maxDNSName)
	case strings.Contains(strings.TrimPrefix(name, "*."), "*"):
		c.add(path, "DNS name %q: * stands for whole labels at the beginning only: *.example.com", shorten(name))
	case !dnsNamePattern.MatchString(name):
		c.add(path, "DNS name %q: want for example api.example.com or *.example.com", shorten(name))
	case r.Action != ActionAllow:
		// "DomainNames is only supported for Accept rules." What has the name shares its address with
		// others, which a denial would hit.
		c.add(path, "DNS name %q in a rule that does not allow: names can only be allowed, since others share their addresses", shorten(name))
	}
	for _, label := range strings.Split(name, ".") {
		if len(label) > maxDNSLabel {
			c.add(path, "DNS name %q: a part of %d letters; want at most %d", shorten(name), len(label), maxDNSLabel)
			return
		}
	}
}

// hostBits lists the blocks of a policy that say more than their network, as warnings.
func hostBits(p *Policy) []string {
	var out []string
	see := func(path, text string) {
		if cidr, err := netip.ParsePrefix(text); err == nil && cidr != cidr.Masked() {
			out = append(out, fmt.Sprintf("%s: %s has host bits behind its prefix; it is read as %s", path, text, cidr.Masked()))
		}
	}
	for _, d := range []Direction{Ingress, Egress} {
		for i, r := range p.Rules(d) {
			for j, x := range r.Peers {
				if x.IPBlock == nil {
					continue
				}
				path := fmt.Sprintf("%s[%d] peer %d", d, i, j)
				see(path, x.IPBlock.CIDR)
				for _, e := range x.IPBlock.Except {
					see(path, e)
				}
			}
		}
	}
	return out
}
