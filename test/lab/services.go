package lab

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// natRules is what stands for kube-proxy in one namespace: destination NAT from a Service's address
// and port to one backend at random, for what passes through (prerouting) and what the namespace
// sends itself (output). The client's address stays, except where a pod reaches itself through a
// Service: local says which addresses can.
func natRules(vips []VIP, local []netip.Addr) string {
	var b strings.Builder
	for _, v4 := range []bool{true, false} {
		family, typ := "ip", "ipv4_addr"
		if !v4 {
			family, typ = "ip6", "ipv6_addr"
		}
		fmt.Fprintf(&b, "table %s services {\n", family)
		var keys, selves []string
		for i, v := range vips {
			if v.Addr.Is4() != v4 {
				continue
			}
			keys = append(keys, fmt.Sprintf("%s . %d . %d : goto service%d", v.Addr, v.Protocol, v.Port, i))
			serviceChains(&b, family, i, v)
		}
		for _, a := range local {
			if a.Is4() == v4 {
				selves = append(selves, fmt.Sprintf("%s . %s", a, a))
			}
		}
		fmt.Fprintf(&b, "\tmap services {\n\t\ttype %s . inet_proto . inet_service : verdict\n%s\t}\n", typ, elements(keys))
		fmt.Fprintf(&b, "\tset selves {\n\t\ttype %s . %s\n%s\t}\n", typ, typ, elements(selves))
		for _, hook := range []string{"prerouting", "output"} {
			fmt.Fprintf(&b, "\tchain %s {\n\t\ttype nat hook %s priority -100; policy accept;\n", hook, hook)
			fmt.Fprintf(&b, "\t\t%s daddr . meta l4proto . th dport vmap @services\n\t}\n", family)
		}
		b.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n")
		fmt.Fprintf(&b, "\t\t%s saddr . %s daddr @selves ct status dnat masquerade\n\t}\n}\n", family, family)
	}
	return b.String()
}

// serviceChains writes the chain of one Service port and one for each backend. A port without
// backends drops: it has nobody to answer.
func serviceChains(b *strings.Builder, family string, i int, v VIP) {
	if len(v.Backends) == 0 {
		fmt.Fprintf(b, "\tchain service%d {\n\t\tdrop\n\t}\n", i)
		return
	}
	var choice []string
	for j, backend := range v.Backends {
		fmt.Fprintf(b, "\tchain backend%d-%d {\n\t\tmeta l4proto %d dnat to %s\n\t}\n", i, j, v.Protocol, backend)
		choice = append(choice, fmt.Sprintf("%d : goto backend%d-%d", j, i, j))
	}
	fmt.Fprintf(b, "\tchain service%d {\n\t\tnumgen random mod %d vmap { %s }\n\t}\n", i, len(choice), strings.Join(choice, ", "))
}

func elements(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "\t\telements = { " + strings.Join(list, ",\n\t\t\t") + " }\n"
}

// serve loads the NAT into every node and into the outside network.
func (s *State) serve() error {
	if len(s.VIPs) == 0 {
		return nil
	}
	if err := nft(nsPath(s.Outside.NetNS), natRules(s.VIPs, nil)); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		var local []netip.Addr
		for _, p := range s.Pods {
			if p.Node == n.Name && !p.HostNetwork {
				local = append(local, p.Addrs...)
			}
		}
		if err := nft(n.Path(), natRules(s.VIPs, local)); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return nil
}

// nft loads rules in a namespace.
func nft(path, rules string) error {
	return within(path, func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		var msg bytes.Buffer
		cmd.Stderr = &msg
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(msg.String()))
		}
		return nil
	})
}
