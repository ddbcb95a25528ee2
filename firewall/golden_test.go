package firewall

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

var update = flag.Bool("update", false, "rewrite testdata/*.nft from what Compile says")

func testEntry(peer string, proto identity.Protocol, from, to uint16) policy.Entry {
	p, err := netip.ParsePrefix(peer)
	if err != nil {
		p = netip.PrefixFrom(netip.MustParseAddr(peer), netip.MustParseAddr(peer).BitLen())
	}
	return policy.Entry{Peer: p, Protocol: proto, Port: from, EndPort: to}
}

// shopSides are sides in which every set has something.
func shopSides() policy.Sides {
	return policy.Sides{
		Egress: policy.Side{Isolated: true, Entries: []policy.Entry{
			testEntry("10.1.0.8", identity.TCP, 6379, 6379),
			testEntry("10.1.0.53", identity.UDP, 53, 53),
			testEntry("fd00:1::53", identity.UDP, 53, 53),
			testEntry("203.0.113.0/24", identity.TCP, 443, 443),
			testEntry("203.0.113.0/25", identity.AnyProtocol, 0, 0),
			testEntry("10.1.0.8", identity.ICMP, 8, 8),
			testEntry("fd00:1::8", identity.ICMPv6, 128, 128),
		}},
		Ingress: policy.Side{Isolated: true, Entries: []policy.Entry{
			testEntry("10.1.0.1", identity.AnyProtocol, 0, 0),
			testEntry("10.1.0.7", identity.TCP, 8080, 8080),
			testEntry("fd00:1::7", identity.TCP, 8080, 8080),
			testEntry("10.1.0.0/24", identity.TCP, 9000, 9100),
		}},
	}
}

func shopInterface(host string) Interface {
	return Interface{Name: "eth0", Host: host, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9},
		Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("fd00:1::9")}}
}

func openIngress(s policy.Sides) policy.Sides {
	s.Ingress = policy.Side{}
	return s
}

func openEgress(s policy.Sides) policy.Sides {
	s.Egress = policy.Side{}
	return s
}

// shopDenied is what shopSides must not let through, some of it inside of what it does.
func shopDenied(s policy.Sides) policy.Sides {
	s.Egress.Denied = []policy.Entry{
		testEntry("169.254.169.254", identity.AnyProtocol, 0, 0),
		testEntry("10.1.0.8", identity.TCP, 22, 22),
		testEntry("203.0.113.64/26", identity.TCP, 443, 443),
		testEntry("fd00:1::53", identity.AnyProtocol, 0, 0),
	}
	s.Ingress.Denied = []policy.Entry{
		testEntry("10.1.0.0/28", identity.AnyProtocol, 0, 0),
		testEntry("10.1.0.7", identity.TCP, 8080, 8080),
		testEntry("fd00:1::7", identity.ICMPv6, 128, 128),
	}
	return s
}

func rejecting(s policy.Sides) policy.Sides {
	s.Egress.OnDeny, s.Ingress.OnDeny = policy.Reject, policy.Reject
	return s
}

// shopNamed allows a name too.
func shopNamed(spec Spec) Spec {
	spec.Sides.Egress.Names = []policy.NameEntry{{Name: "api.example.com", Protocol: identity.TCP, Port: 443, EndPort: 443}}
	spec.Resolvers = []netip.Addr{netip.MustParseAddr("10.1.0.53"), netip.MustParseAddr("fd00:1::53")}
	return spec
}

// goldens are the specs whose rulesets are written down, two files each: the namespace and the guard.
var goldens = []struct {
	name string
	spec Spec
}{
	{"learn", Spec{Mode: policy.Learn, Sides: shopSides(), Interfaces: []Interface{shopInterface("host0")}}},
	{"alert", Spec{Mode: policy.AlertMode, Sides: shopSides(), Interfaces: []Interface{shopInterface("host0")}}},
	{"enforce", Spec{Mode: policy.Enforce, Sides: shopSides(), Interfaces: []Interface{shopInterface("host0")}}},
	{"enforce-unguarded", Spec{Mode: policy.Enforce, Sides: shopSides(), Interfaces: []Interface{shopInterface("")}}},
	{"enforce-open-ingress", Spec{Mode: policy.Enforce, Sides: openIngress(shopSides()), Interfaces: []Interface{shopInterface("host0")}}},
	{"enforce-open-ingress-unguarded", Spec{Mode: policy.Enforce, Sides: openIngress(shopSides()), Interfaces: []Interface{shopInterface("")}}},
	{"enforce-open-egress", Spec{Mode: policy.Enforce, Sides: openEgress(shopSides()), Interfaces: []Interface{shopInterface("host0")}}},
	{"deny", Spec{Mode: policy.Enforce, Sides: shopDenied(shopSides()), Interfaces: []Interface{shopInterface("host0")}}},
	{"deny-unguarded", Spec{Mode: policy.Enforce, Sides: shopDenied(shopSides()), Interfaces: []Interface{shopInterface("")}}},
	{"deny-open", Spec{Mode: policy.Enforce, Sides: shopDenied(policy.Sides{}), Interfaces: []Interface{shopInterface("host0")}}},
	{"deny-open-unguarded", Spec{Mode: policy.Enforce, Sides: shopDenied(policy.Sides{}), Interfaces: []Interface{shopInterface("")}}},
	{"names", shopNamed(Spec{Mode: policy.Enforce, Sides: shopSides(), Interfaces: []Interface{shopInterface("host0")}})},
	{"names-deny-unguarded", shopNamed(Spec{Mode: policy.Enforce, Sides: shopDenied(shopSides()), Interfaces: []Interface{shopInterface("")}})},
	{"names-learn", shopNamed(Spec{Mode: policy.Learn, Sides: shopSides(), Interfaces: []Interface{shopInterface("host0")}})},
	{"reject", Spec{Mode: policy.Enforce, Sides: rejecting(shopSides()), Interfaces: []Interface{shopInterface("host0")}}},
	{"reject-unguarded", Spec{Mode: policy.Enforce, Sides: rejecting(shopDenied(policy.Sides{})), Interfaces: []Interface{shopInterface("")}}},
	{"redirected", Spec{Mode: policy.Enforce, Sides: shopSides(), Interfaces: []Interface{shopInterface("host0")}, Redirected: true}},
	{"deny-open-alert", Spec{Mode: policy.AlertMode, Sides: shopDenied(policy.Sides{}), Interfaces: []Interface{shopInterface("host0")}}},
}

func goldenFile(name string, t *Table) string {
	if t.Family == FamilyNetdev {
		name += "-guard"
	}
	return filepath.Join("testdata", name+".nft")
}

func TestGoldenText(t *testing.T) {
	for _, g := range goldens {
		for _, table := range Compile(g.spec).Tables {
			file := goldenFile(g.name, table)
			if *update {
				if err := os.WriteFile(file, []byte(table.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), table.String()); diff != "" {
				t.Errorf("%s (- file, + compiled; go test -run Golden -update rewrites it):\n%s", file, diff)
			}
		}
	}
}

var elementsBlock = regexp.MustCompile(`elements = \{([^}]*)\}`)

// unordered sorts the elements of each set, whose order and line breaks nft chooses, and puts sets
// and chains in the order of their names.
func unordered(nft string) string {
	nft = elementsBlock.ReplaceAllStringFunc(nft, func(m string) string {
		var list []string
		for _, e := range strings.Split(elementsBlock.FindStringSubmatch(m)[1], ",") {
			list = append(list, strings.TrimSpace(e))
		}
		sort.Strings(list)
		return "elements = { " + strings.Join(list, ", ") + " }"
	})
	nft = regexp.MustCompile(`(?m) # progname .*|^\tflags owner\n\n?`).ReplaceAllString(nft, "")
	// Where the NFQUEUE target stands in for nft's queue, nft prints it in the words of iptables, with
	// complaints about a family that it does not know.
	nft = regexp.MustCompile(`(?m)^# Warning: .*\n|libxtables: .*\n`).ReplaceAllString(nft, "")
	nft = strings.ReplaceAll(nft, "queue num 4711 bypass", "queue flags bypass to 4711")
	blocks := strings.Split(strings.TrimSuffix(strings.TrimSpace(nft), "}"), "\n\n")
	head, first, _ := strings.Cut(blocks[0], "\n")
	blocks[0] = first
	for i := range blocks {
		blocks[i] = strings.Trim(blocks[i], "\n")
	}
	sort.Strings(blocks)
	return head + "\n" + strings.Join(blocks, "\n\n") + "\n}\n"
}

// TestGoldenInKernel applies each golden by netlink, and nft must list the same text.
func TestGoldenInKernel(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			node, inside := testNamespace(t), testNamespace(t)
			testRun(t, "ip", "-n", filepath.Base(node), "link", "add", "host0", "type", "veth", "peer", "name", "eth0", "netns", filepath.Base(inside))
			ns := testOpen(t, Config{NetNS: inside, Node: node, Interfaces: g.spec.Interfaces})
			rs := Compile(g.spec)
			if _, err := ns.Apply(rs); err != nil {
				t.Fatal(err)
			}
			for _, table := range rs.Tables {
				where := inside
				if table.Place == AtNode {
					where = node
				}
				got := testIn(t, where, "nft", "-s", "list", "table", table.Family.String(), table.Name)
				if diff := cmp.Diff(unordered(table.String()), unordered(got)); diff != "" {
					t.Errorf("table %s (- ours, + nft):\n%s", table.Name, diff)
				}
			}
			if err := ns.Check(); err != nil {
				t.Error(err)
			}
			if n, err := ns.Apply(Compile(g.spec)); err != nil || n != 0 {
				t.Errorf("second Apply: %d changes, error %v; want nothing to do", n, err)
			}
		})
	}
}

func testOpen(t testing.TB, cfg Config) *Namespace {
	t.Helper()
	ns, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}
