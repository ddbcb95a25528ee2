package identity

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestServiceOf(t *testing.T) {
	for _, c := range []struct {
		name   string
		labels Labels
		order  []string
		want   string
	}{
		{"x", Labels{"app": "cart", "app.kubernetes.io/name": "shop-cart"}, nil, "shop-cart"},
		{"x", Labels{"name": "d", "k8s-app": "c", "app": ""}, nil, "c"},
		{"x", Labels{"app": "cart", "team": "web"}, []string{"team"}, "web"},
		{"cart-7d9f8c6b5-x2k9p", nil, nil, "cart"},
		{"cart-7d9f8c6b5-x2k9p", Labels{"pod-template-hash": "7d9f8c6b5"}, nil, "cart"},
		{"cart-v2-7d9f8c6b5", Labels{"pod-template-hash": "7d9f8c6b5"}, nil, "cart-v2"},
		{"db-0", Labels{"statefulset.kubernetes.io/pod-name": "db-0"}, nil, "db"},
		{"db-12", nil, nil, "db"},
		{"db-2", Labels{"version": "2"}, nil, "db-2"},
		{"fluentd-x7k2p", Labels{"controller-revision-hash": "abc"}, nil, "fluentd"},
		{"fluentd-x7k2p", nil, nil, "fluentd"},
		{"backup-28912345-k8x2p", Labels{"job-name": "backup-28912345"}, nil, "backup-28912345"},
		{"web-https", nil, nil, "web-https"},
		{"nginx", nil, nil, "nginx"},
		{"my-proxy", nil, nil, "my-proxy"},
		{"-0", nil, nil, "-0"},
	} {
		if got := ServiceOf("shop", c.name, c.labels, c.order); got != (Service{"shop", c.want}) {
			t.Errorf("%s %v: got %s, want shop/%s", c.name, c.labels, got, c.want)
		}
	}
}

// TestVIPs: who is behind which port of a Service's address.
func TestVIPs(t *testing.T) {
	ix := NewIndex("n1")
	add := func(id, ns string, l Labels, ports []ContainerPort, a ...string) {
		ix.Upsert(Workload{ID: id, Namespace: ns, Name: id, Labels: l, Ports: ports, Addrs: addrs(a...), Source: SourceInventory})
	}
	add("a", "shop", Labels{"app": "cart", "v": "1"}, []ContainerPort{{"http", TCP, 8080}}, "10.0.0.1", "fd00::1")
	add("b", "shop", Labels{"app": "cart", "v": "2"}, []ContainerPort{{"http", TCP, 8081}, {"dns", UDP, 5353}}, "10.0.0.2")
	add("ended", "shop", Labels{"app": "cart"}, nil)
	add("elsewhere", "web", Labels{"app": "cart"}, nil, "10.0.0.3")
	add("other", "shop", Labels{"app": "ads"}, nil, "10.0.0.4")
	ix.SetServices([]KubeService{
		{Namespace: "shop", Name: "cart", Selector: Labels{"app": "cart"}, Addrs: addrs("10.96.0.1", "fd00:96::1"), Ports: []ServicePort{
			{Port: 80, TargetName: "http"}, {Protocol: UDP, Port: 53, TargetName: "dns"}, {Port: 7070}, {Port: 9, TargetName: "nobody"}, {Port: 81, Target: 8181},
		}},
		{Namespace: "shop", Name: "v2", Selector: Labels{"app": "cart", "v": "2"}, Addrs: addrs("10.96.0.2"), Ports: []ServicePort{{Port: 80, Target: 1}}},
		{Namespace: "shop", Name: "external", Addrs: addrs("10.96.0.3"), Ports: []ServicePort{{Port: 80}}},
	})
	v := ix.View()
	for key, want := range map[string]string{
		"10.96.0.1 TCP 80": "[a:8080 b:8081]", "10.96.0.1 UDP 53": "[b:5353]", "10.96.0.1 TCP 7070": "[a:7070 b:7070]",
		"10.96.0.1 TCP 9": "[]", "10.96.0.1 TCP 81": "[a:8181 b:8181]", "10.96.0.1 TCP 82": "[]",
		"fd00:96::1 TCP 80": "[a:8080]", "fd00:96::1 UDP 53": "[]", "10.96.0.2 TCP 80": "[b:1]", "10.96.0.3 TCP 80": "[]",
	} {
		var addr, proto string
		var port uint16
		if _, err := fmt.Sscan(key, &addr, &proto, &port); err != nil {
			t.Fatal(err)
		}
		p, err := ParseProtocol(proto)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, b := range v.Backends(VIPKey{netip.MustParseAddr(addr), p, port}) {
			got = append(got, fmt.Sprintf("%s:%d", b.Workload.ID, b.Port))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, want %s", key, got, want)
		}
	}
	if v.VIPNames[netip.MustParseAddr("10.96.0.3")] != "shop/external" {
		t.Error("a Service without selector has its address all the same")
	}
}

func TestViewIsCached(t *testing.T) {
	ix := NewIndex("n1")
	ix.Upsert(cni("c1", "cart-1", ix.now(), "10.0.0.5"))
	v, g := ix.View(), ix.Generation()
	ix.SetNode(nil)
	ix.SetServices(nil)
	ix.SetServices([]KubeService{})
	ix.SetResolvers(nil)
	if g2 := ix.Generation(); g2 != g {
		t.Errorf("generation went from %d to %d for nothing", g, g2)
	}
	if first, second := ix.View(), ix.View(); first != second {
		t.Error("a view is made anew without a change")
	}
	w := cni("c2", "x", ix.now(), "10.0.0.6")
	w.Labels = Labels{"a": "b"}
	ix.Upsert(w)
	w.Labels["a"] = "c"
	w.Addrs[0] = netip.MustParseAddr("10.0.0.7")
	if got := ix.View().Workload("c2"); got.Labels["a"] != "b" || got.Addrs[0].String() != "10.0.0.6" {
		t.Error("the index keeps what its caller writes to")
	}
	if len(v.Workloads) != 1 {
		t.Error("a view changed")
	}
}

// TestSubtract: with the fewest prefixes, against membership of every address of a /24.
func TestSubtract(t *testing.T) {
	r := newRand(t)
	for range 500 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))}), 24+r.IntN(9)).Masked()
		var holes []netip.Prefix
		for range r.IntN(5) {
			holes = append(holes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))}), 24+r.IntN(9)).Masked())
		}
		rest := Subtract(p, Union(holes))
		if !slices.Equal(rest, Subtract(p, holes)) {
			t.Fatal("Union changed what holes cover")
		}
		if !slices.IsSortedFunc(rest, ComparePrefixes) {
			t.Fatalf("not sorted: %v", rest)
		}
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			want := p.Contains(a) && !slices.ContainsFunc(holes, func(h netip.Prefix) bool { return h.Contains(a) })
			n := 0
			for _, x := range rest {
				if x.Contains(a) {
					n++
				}
			}
			if want != (n == 1) || n > 1 {
				t.Fatalf("%s without %v: %s lies in %d of %v", p, holes, a, n, rest)
			}
		}
	}
	got := fmt.Sprint(Subtract(netip.MustParsePrefix("10.0.0.0/8"), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/10")}))
	if got != "[10.64.0.0/10 10.128.0.0/9]" {
		t.Error(got)
	}
	if got := Subtract(netip.MustParsePrefix("::/0"), []netip.Prefix{netip.MustParsePrefix("fd00::1/128")}); len(got) != 128 {
		t.Errorf("one address out of IPv6: %d prefixes", len(got))
	}
}

// TestWorld: what the world is, and that it does not change while workloads come and go in a block.
func TestWorld(t *testing.T) {
	ix := NewIndex("n1")
	ix.Upsert(cni("c1", "cart-1", ix.now(), "10.0.0.5", "fd00::5"))
	ix.SetNode(addrs("192.168.1.10", "10.0.0.1"))
	ix.SetPodBlocks([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")})
	ix.SetServices([]KubeService{{Addrs: addrs("10.96.0.7", "203.0.113.80", "fd96::7")}})
	in := func(s string) bool {
		a := netip.MustParseAddr(s)
		return slices.ContainsFunc(ix.View().World(), func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for s, want := range map[string]bool{
		"203.0.113.9": true, "203.0.113.80": true, "8.8.8.8": true, "2001:db8::1": true, "192.168.1.11": true, "10.9.9.9": true, "fd01::1": true,
		"10.0.0.5": false, "10.0.0.99": false, "10.0.0.1": false, "fd00::ffff": false, "fd00::1:0:0:0:1": true,
		"10.244.7.7": false, "192.168.1.10": false, "10.96.0.99": false, "10.96.1.1": true, "fd96::99": false,
		"127.0.0.1": false, "169.254.169.254": false, "224.0.0.1": false, "255.255.255.255": false, "0.0.0.0": false,
		"::": false, "::1": false, "fe80::1": false, "ff02::1": false, "fd00:ec2::254": false,
	} {
		if in(s) != want {
			t.Errorf("%s: in the world: %v, want %v", s, in(s), want)
		}
	}
	before := ix.View().World()
	ix.Upsert(cni("c2", "cart-2", ix.now(), "10.0.0.77"))
	if !slices.Equal(before, ix.View().World()) {
		t.Error("the world changed with a workload in a known block")
	}
	if n := len(before); n > 400 {
		t.Errorf("the world has %d prefixes", n)
	} else {
		t.Logf("the world has %d prefixes", n)
	}
}
