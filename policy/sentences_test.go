package policy

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// town is the small cluster that the sentences are tried in. Node n1 is 192.168.1.10; another
// node's workload shares its network, 192.168.1.11.
func town() *identity.View {
	ix := identity.NewIndex("n1")
	ix.SetNamespaceLabels(map[string]identity.Labels{"default": {}, "web": {"team": "web", "env": "prod"}, "mon": {"team": "mon", "env": "prod"}})
	add := func(ns, name, labels, ports string, addrs ...string) {
		w := identity.Workload{ID: ns + "/" + name, Namespace: ns, Name: name, Labels: identity.Labels{}, Node: "n1", Local: true, Source: identity.SourceInventory}
		for _, l := range strings.Fields(labels) {
			k, v, _ := strings.Cut(l, "=")
			w.Labels[k] = v
		}
		for _, p := range strings.Fields(ports) {
			name, number, _ := strings.Cut(p, "=")
			n, _ := strconv.Atoi(number)
			w.Ports = append(w.Ports, identity.ContainerPort{Name: name, Protocol: identity.TCP, Port: uint16(n)})
		}
		for _, a := range addrs {
			w.Addrs = append(w.Addrs, netip.MustParseAddr(a))
		}
		switch name {
		case "hostnet":
			w.HostNetwork = true
		case "far-hostnet":
			w.HostNetwork, w.Local, w.Node = true, false, "n2"
		}
		ix.Upsert(w)
	}
	add("default", "db", "role=db", "sql=5432", "10.0.0.2", "fd00::2")
	add("default", "api", "role=api tier=front", "http=8080", "10.0.0.3", "fd00::3")
	add("default", "bare", "", "", "10.0.0.4")
	add("web", "front", "role=frontend tier=front", "http=80", "10.0.1.2", "fd00:0:0:1::2")
	add("web", "api", "role=api", "http=8081", "10.0.1.3")
	add("mon", "prom", "role=prom", "", "10.0.2.2")
	add("web", "hostnet", "role=frontend", "http=80", "192.168.1.10")
	add("web", "far-hostnet", "role=frontend", "http=80", "192.168.1.11")
	ix.SetNode([]netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("10.0.0.1")})
	ix.SetResolvers([]netip.Addr{netip.MustParseAddr("10.96.0.10")})
	ix.SetNetworks(map[string][]netip.Prefix{"office": {netip.MustParsePrefix("198.51.100.0/24")}})
	vip := func(name, addr, role string, port, target uint16) identity.KubeService {
		return identity.KubeService{
			Namespace: "default", Name: name, Selector: identity.Labels{"role": role}, Addrs: []netip.Addr{netip.MustParseAddr(addr)},
			Ports: []identity.ServicePort{{Protocol: identity.TCP, Port: port, Target: target}},
		}
	}
	ix.SetServices([]identity.KubeService{vip("db", "10.96.0.7", "db", 80, 5432), vip("nobody", "10.96.0.8", "nobody", 80, 80)})
	return ix.View()
}

// policyYAML puts a spec, indented by two, into a document.
func policyYAML(kind, spec string) string {
	version := KubernetesVersion
	if kind == KindPolicy {
		version = NativeVersion
	}
	return "apiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: x, namespace: default}\nspec:\n  " +
		strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  ") + "\n"
}

// sentences: what the API says, a policy of namespace default, and connections with what becomes of
// them: "client > server PROTO/port: allow|deny". @6 takes the IPv6 address.
var sentences = []struct {
	sentence string
	kind     string // empty: NetworkPolicy
	spec     string
	want     string
}{
	{"podSelector: an empty selector matches all pods in the policy's namespace", "", `
podSelector: {}`, `
default/api > default/db TCP/5432: deny
web/front > default/bare TCP/1: deny
default/db > web/front TCP/80: allow
default/api > web/api TCP/8081: allow`},
	{"podSelector is optional; if it is not specified, it defaults to an empty selector", "", `
policyTypes: [Ingress]`, `
default/api > default/db TCP/5432: deny`},
	{"if this field (ingress) is empty then this NetworkPolicy does not allow any traffic", "", `
podSelector: {matchLabels: {role: db}}
ingress: []`, `
default/api > default/db TCP/5432: deny
default/db > default/api TCP/8080: allow
default/db > default/db TCP/5432: allow
default/db@6 > default/db TCP/5432: allow`},
	{"traffic is allowed … if the traffic source is the pod's local node", "", `
podSelector: {}
ingress: []`, `
node > default/db TCP/5432: allow
192.168.1.10 > default/db UDP/9: allow
fe80::1 > default/db@6 TCP/5432: allow
10.0.0.1 > default/db ICMP/8: allow
web/hostnet > default/db TCP/5432: allow
web/far-hostnet > default/db TCP/5432: deny
192.168.1.11 > default/db TCP/5432: deny`},
	{"ingress rule: from empty or missing matches all sources; ports empty or missing matches all ports", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- {}`, `
203.0.113.9 > default/db TCP/5432: allow
web/front > default/db ICMP/8: allow
web/front > default/db 47/0: allow
2001:db8::1 > default/db@6 ICMPv6/128: allow`},
	{"an empty list is as a missing one", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from: []
  ports: []`, `
203.0.113.9 > default/db SCTP/7: allow`},
	{"ports: allows traffic only if the traffic matches at least one port in the list; ICMP is none", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- ports: [{port: 5432}, {protocol: UDP, port: 53}, {protocol: SCTP}]`, `
web/front > default/db TCP/5432: allow
web/front > default/db UDP/5432: deny
web/front > default/db UDP/53: allow
web/front > default/db SCTP/9: allow
web/front > default/db ICMP/8: deny
web/front > default/db 47/0: deny`},
	{"protocol: if not specified, this field defaults to TCP; port: if not provided, matches all port names and numbers", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- ports: [{}]`, `
web/front > default/db TCP/1: allow
web/front > default/db TCP/65535: allow
web/front > default/db UDP/1: deny`},
	{"endPort: the range of ports from port to endPort, inclusive", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- ports: [{port: 5000, endPort: 5432}]`, `
web/front > default/db TCP/4999: deny
web/front > default/db TCP/5000: allow
web/front > default/db TCP/5432: allow
web/front > default/db TCP/5433: deny`},
	{"port: a named port on a pod: at ingress the selected pods' own", "", `
podSelector: {}
ingress:
- ports: [{port: sql}]`, `
web/front > default/db TCP/5432: allow
web/front > default/api TCP/5432: deny
web/front > default/db UDP/5432: deny`},
	{"port: a named port on a pod: at egress each peer's", "", `
podSelector: {matchLabels: {role: db}}
policyTypes: [Egress]
egress:
- ports: [{port: http}]`, `
default/db > default/api TCP/8080: allow
default/db > web/front TCP/80: allow
default/db > web/front TCP/8080: deny
default/db > 203.0.113.9 TCP/80: deny
default/db > web/hostnet TCP/80: deny
default/db > default/bare TCP/80: deny`},
	{"from: items in this list are combined using a logical OR; traffic must match both ports and from", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - podSelector: {matchLabels: {role: api}}
  - namespaceSelector: {matchLabels: {team: mon}}
  ports: [{port: 5432}]`, `
default/api > default/db TCP/5432: allow
mon/prom > default/db TCP/5432: allow
default/api > default/db TCP/5433: deny
web/api > default/db TCP/5432: deny`},
	{"podSelector: otherwise it selects the pods matching podSelector in the policy's own namespace; if present but empty, it selects all pods", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from: [{podSelector: {}}]`, `
default/bare > default/db TCP/1: allow
web/front > default/db TCP/1: deny
203.0.113.9 > default/db TCP/1: deny`},
	{"namespaceSelector: if present but empty, it selects all namespaces: every pod, nobody else", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from: [{namespaceSelector: {}}]`, `
default/bare > default/db TCP/1: allow
web/front > default/db TCP/1: allow
203.0.113.9 > default/db TCP/1: deny
web/far-hostnet > default/db TCP/1: deny`},
	{"if namespaceSelector is also set, the peer selects the pods matching podSelector in the namespaces selected", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - podSelector: {matchLabels: {role: api}}
    namespaceSelector: {matchLabels: {team: web}}`, `
web/api > default/db TCP/1: allow
web/front > default/db TCP/1: deny
default/api > default/db TCP/1: deny`},
	{"namespaces are selected by name through kubernetes.io/metadata.name", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}}]`, `
web/api > default/db TCP/1: allow
mon/prom > default/db TCP/1: deny`},
	{"matchExpressions: In, and all of them are ANDed with matchLabels", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - namespaceSelector: {matchLabels: {env: prod}}
    podSelector:
      matchExpressions:
      - {key: role, operator: In, values: [api, frontend]}
      - {key: tier, operator: Exists}`, `
web/front > default/db TCP/1: allow
web/api > default/db TCP/1: deny
mon/prom > default/db TCP/1: deny`},
	{"matchExpressions: NotIn and DoesNotExist hold for a label that is not there", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - podSelector:
      matchExpressions:
      - {key: role, operator: NotIn, values: [api]}
      - {key: tier, operator: DoesNotExist}`, `
default/bare > default/db TCP/1: allow
default/api > default/db TCP/1: deny`},
	{"matchExpressions select what a policy applies to", "", `
podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}`, `
default/db > default/bare TCP/1: deny
default/bare > default/db TCP/1: allow`},
	{"ipBlock: a particular CIDR that is allowed; except: CIDRs that should not be included", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}
  - ipBlock: {cidr: "2001:db8::/32"}`, `
203.0.113.9 > default/db TCP/1: allow
203.0.113.129 > default/db TCP/1: deny
203.0.112.9 > default/db TCP/1: deny
2001:db8::1 > default/db@6 TCP/1: allow
2001:db9::1 > default/db@6 TCP/1: deny`},
	{"an except of one item does not bite another", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from:
  - ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25]}
  - ipBlock: {cidr: 203.0.113.0/26}`, `
203.0.113.9 > default/db TCP/1: allow
203.0.113.100 > default/db TCP/1: deny
203.0.113.200 > default/db TCP/1: allow`},
	{"ipBlock: by address: a pod in the block is admitted, a host-network pod by its node's address", "", `
podSelector: {matchLabels: {role: db}}
ingress:
- from: [{ipBlock: {cidr: 10.0.1.0/24}}, {ipBlock: {cidr: 192.168.1.11/32}}]`, `
web/front > default/db TCP/1: allow
default/api > default/db TCP/1: deny
web/front@6 > default/db@6 TCP/1: deny
web/far-hostnet > default/db TCP/1: allow`},
	{"a host-network pod is not selected by labels, as peer or as subject", "", `
podSelector: {}
policyTypes: [Egress]
egress:
- to: [{namespaceSelector: {}, podSelector: {matchLabels: {role: frontend}}}]`, `
default/db > web/front TCP/80: allow
default/db > web/hostnet TCP/80: deny
web/hostnet > default/db TCP/5432: allow`},
	{"policyTypes not specified: policies that contain an egress section are assumed to affect egress, and all affect ingress", "", `
podSelector: {matchLabels: {role: db}}
egress:
- to: [{podSelector: {}}]`, `
default/db > default/api TCP/1: allow
default/db > web/front TCP/80: deny
default/api > default/db TCP/1: deny`},
	{"a policy that would not include an egress section … would otherwise default to just [Ingress]", "", `
podSelector: {matchLabels: {role: db}}
egress: []`, `
default/db > web/front TCP/80: allow
default/api > default/db TCP/1: deny`},
	{"if you want to write an egress-only policy, you must explicitly specify policyTypes [Egress]", "", `
podSelector: {matchLabels: {role: db}}
policyTypes: [Egress]`, `
default/db > web/front TCP/80: deny
default/api > default/db TCP/1: allow
default/db > 10.96.0.10 UDP/53: allow
default/db > 10.96.0.10 TCP/53: allow
default/db > 10.96.0.10 UDP/54: deny
default/db > 192.168.1.10 TCP/22: deny
default/db > default/db@6 TCP/5432: allow`},
	{"ingress rules beside policyTypes [Egress] isolate nothing", "", `
podSelector: {matchLabels: {role: db}}
policyTypes: [Egress]
ingress: [{from: [{podSelector: {}}]}]
egress: [{}]`, `
web/front > default/db TCP/1: allow
default/db > 203.0.113.9 UDP/1: allow`},
	{"a Service's address is allowed exactly when its backends are, on their ports", "", `
podSelector: {matchLabels: {role: api}}
policyTypes: [Egress]
egress:
- to: [{podSelector: {matchLabels: {role: db}}}]
  ports: [{port: 5432}]
- to: [{ipBlock: {cidr: 10.96.0.0/12}}]
  ports: [{port: 443}]`, `
default/api > 10.96.0.7 TCP/80: allow
default/api > 10.96.0.7 TCP/5432: deny
default/api > 10.96.0.8 TCP/80: deny
default/api > 10.96.0.8 TCP/443: allow`},
	{"a block over a Service's address does not open what its backends are denied", "", `
podSelector: {matchLabels: {role: api}}
policyTypes: [Egress]
egress:
- to: [{ipBlock: {cidr: 10.96.0.0/12}}]
  ports: [{port: 80}]
- to: [{podSelector: {}}]
  ports: [{port: 80}]`, `
default/api > 10.96.0.7 TCP/80: deny
default/api > 10.96.0.8 TCP/80: allow`},
	{"native: network names", KindPolicy, `
podSelector: {matchLabels: {role: db}}
policyTypes: [Ingress, Egress]
ingress:
- from: [{network: node}]
egress:
- to: [{network: world}]
  ports: [{port: 443}]
- to: [{network: cluster}, {network: metadata}, {network: office}]
  ports: [{port: 80}, {port: 8080, endPort: 8081}]
- to: [{network: dns}]
- to: [{network: node}]
  ports: [{port: 10250}]`, `
default/db > 203.0.113.9 TCP/443: allow
default/db > 203.0.113.9 TCP/80: deny
default/db > web/front TCP/443: deny
default/db > web/front TCP/80: allow
default/db > 10.0.1.99 TCP/80: deny
default/db > 10.0.1.99 TCP/443: deny
default/db > 169.254.169.254 TCP/80: allow
default/db > 169.254.169.254 TCP/443: deny
default/db > 198.51.100.7 TCP/80: allow
default/db > 198.51.100.7 TCP/443: allow
default/db > 10.96.0.10 TCP/9153: allow
default/db > 192.168.1.10 TCP/10250: allow
default/db > 192.168.1.10 TCP/443: deny
default/db > 192.168.1.11 TCP/443: allow
default/db > 127.0.0.1 TCP/443: deny
default/db > 224.0.0.1 UDP/443: deny
default/api > default/db TCP/5432: deny
node > default/db TCP/5432: allow`},
	{"native: ICMP by type", KindPolicy, `
podSelector: {matchLabels: {role: db}}
ingress:
- from: [{podSelector: {}, namespaceSelector: {}}]
  ports: [{protocol: ICMP, port: 8}, {protocol: ICMPv6, port: 128, endPort: 129}]
- from: [{ipBlock: {cidr: 203.0.113.0/24, except: []}}]
  ports: [{protocol: ICMP}]`, `
web/front > default/db ICMP/8: allow
web/front > default/db ICMP/13: deny
web/front@6 > default/db@6 ICMPv6/129: allow
web/front@6 > default/db@6 ICMPv6/130: deny
web/front > default/db TCP/8: deny
203.0.113.9 > default/db ICMP/0: allow`},
	{"native: at the same priority a denial wins, and what is isolated stays so", KindPolicy, `
mode: enforce
priority: 10
severity: high
onDeny: Reject
reason: the database is the shop's heart
podSelector: {matchLabels: {role: db}}
ingress:
- name: api
  from: [{podSelector: {}}]
  ports: [{port: 5432}]
- action: Deny
  severity: critical
  reason: it was broken into
  from: [{podSelector: {matchLabels: {role: api}}}]`, `
default/api > default/db TCP/5432: deny
default/bare > default/db TCP/5432: allow
default/bare > default/db TCP/80: deny
web/api > default/db TCP/5432: deny
node > default/db TCP/5432: allow`},
	{"native: a policy without policyTypes whose rules all deny isolates nothing", KindPolicy, `
podSelector: {matchLabels: {role: api}}
egress:
- action: Deny
  expires: 2099-12-31
  severity: low
  reason: for now
  to: [{service: {name: db}}]
  ports: [{port: 5432}]
- action: Deny
  to: [{network: metadata}]`, `
default/api > default/db TCP/5432: deny
default/api > default/db TCP/80: allow
default/api > 203.0.113.9 TCP/443: allow
default/api > 169.254.169.254 TCP/80: deny
default/bare > default/db TCP/5432: allow
default/db > default/api TCP/8080: allow`},
	{"native: a Service stands for the workloads behind it, on their own ports", KindPolicy, `
podSelector: {matchLabels: {role: api}}
policyTypes: [Egress]
egress:
- to: [{service: {name: db, namespace: default}}]
  expires: 2099-12-31T18:00:00Z
- to: [{service: {name: gone}}]`, `
default/api > default/db TCP/5432: allow
default/api > 10.96.0.7 TCP/80: allow
default/api > default/bare TCP/80: deny`},
	{"native: ingress from a Service is ingress from the workloads behind it", KindPolicy, `
podSelector: {matchLabels: {role: api}}
ingress:
- from: [{service: {name: db}}]
  expires: 2099-12-31`, `
default/db > default/api TCP/8080: allow
default/bare > default/api TCP/8080: deny`},
	{"native: a DNS name admits the addresses that are known by it", KindPolicy, `
podSelector: {matchLabels: {role: api}}
policyTypes: [Egress]
egress:
- to: [{dnsName: api.example.com}, {dnsName: "*.cdn.example.com"}]
  ports: [{port: 443}]`, `
default/api > 203.0.113.9=api.example.com TCP/443: allow
default/api > 203.0.113.9=api.example.com TCP/80: deny
default/api > 203.0.113.9=a.b.cdn.example.com TCP/443: allow
default/api > 203.0.113.9=cdn.example.com TCP/443: deny
default/api > 203.0.113.9 TCP/443: deny`},
}

func TestSentences(t *testing.T) {
	v := town()
	for _, c := range sentences {
		kind := c.kind
		if kind == "" {
			kind = KindNetworkPolicy
		}
		list, err := Parse("x.yaml", []byte(policyYAML(kind, c.spec)))
		if err != nil {
			t.Fatalf("%s: %v", c.sentence, err)
		}
		s, err := NewSet(list...)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(c.want), "\n") {
			question, want, _ := strings.Cut(line, ": ")
			conn := connection(t, v, question)
			d := s.Evaluate(v, conn)
			if d.Verdict.String() != want {
				t.Errorf("%s\n%s: got %s\n%s", c.sentence, line, d.Verdict, strings.Join(d.Reasons(), "\n"))
			}
			for _, side := range []SideDecision{d.Egress, d.Ingress} {
				if side.Reason == "" || side.Isolated != (len(side.Policies) > 0) || side.Verdict == Allow && side.Isolated && side.Rule == "" {
					t.Errorf("%s: incomplete: %+v", line, side)
				}
			}
		}
	}
}

// connection reads "default/api > default/db TCP/5432".
func connection(t *testing.T, v *identity.View, s string) Connection {
	t.Helper()
	f := strings.Fields(s)
	proto, port, _ := strings.Cut(f[3], "/")
	p, err := identity.ParseProtocol(proto)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	server, name, known := strings.Cut(f[2], "=") // "203.0.113.9=api.example.com": known to the client by that name
	c := Connection{Client: end(t, v, f[0]), Server: end(t, v, server), Protocol: p, Port: uint16(n)}
	if known {
		c.Names = []string{name}
	}
	return c
}

func end(t *testing.T, v *identity.View, s string) identity.Peer {
	if s == "node" {
		return identity.Peer{Kind: identity.Node}
	}
	name, six := strings.CutSuffix(s, "@6")
	if ns, pod, ok := strings.Cut(name, "/"); ok {
		w := v.Find(ns, pod)
		if w == nil {
			t.Fatalf("no workload %s", s)
		}
		for _, a := range w.Addrs {
			if a.Is6() == six {
				return identity.Peer{Kind: identity.Pod, Addr: a, Workload: w}
			}
		}
		t.Fatalf("%s has no address of that family", s)
	}
	return v.Peer(netip.MustParseAddr(s))
}

// TestEveryFieldAppears: a field of either kind that no sentence tries fails here.
func TestEveryFieldAppears(t *testing.T) {
	tried := ""
	for _, c := range sentences {
		tried += c.spec + "\n"
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(rt reflect.Type) {
		for rt.Kind() == reflect.Pointer || rt.Kind() == reflect.Slice {
			rt = rt.Elem()
		}
		if rt.Kind() != reflect.Struct || seen[rt] || strings.HasSuffix(rt.PkgPath(), "intstr") {
			return
		}
		seen[rt] = true
		for i := range rt.NumField() {
			name, _, _ := strings.Cut(rt.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(tried, name+":") {
				t.Errorf("%s.%s: no sentence tries it", rt.Name(), name)
			}
			walk(rt.Field(i).Type)
		}
	}
	walk(reflect.TypeOf(networkingv1.NetworkPolicySpec{}))
	walk(reflect.TypeOf(nativeSpec{}))
}
