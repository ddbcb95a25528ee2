package identity

import (
	"net/netip"
	"testing"
	"time"
)

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// clock is a hand-wound clock: second n of the story.
func clock(ix *Index) func(second int) time.Time {
	base := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	now := base
	ix.now = func() time.Time { return now }
	return func(s int) time.Time {
		now = base.Add(time.Duration(s) * time.Second)
		return now
	}
}

func cni(id, name string, since time.Time, addr ...string) Workload {
	return Workload{ID: id, Namespace: "shop", Name: name, Addrs: addrs(addr...), Source: SourceCNI, Local: true, Since: since}
}

func owner(ix *Index, addr string, at time.Time) string {
	p := ix.Name(netip.MustParseAddr(addr), at)
	if p.Kind != Pod {
		return p.Kind.String()
	}
	return p.Workload.ID
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

// A late DEL of the former owner changes nothing for the present one, and a packet is named by who
// had the address when it was sent.
func TestLateDelAndReuse(t *testing.T) {
	ix := NewIndex("n1")
	at := clock(ix)
	ix.Upsert(cni("old", "cart-1", at(10), "10.0.0.5"))
	ix.Upsert(cni("new", "ads-1", at(20), "10.0.0.5"))
	want(t, "after reuse", owner(ix, "10.0.0.5", time.Time{}), "new")
	at(25)
	if !ix.Withdraw("old", SourceCNI) {
		t.Error("the late DEL of a known workload must be told from an unknown one")
	}
	want(t, "after the late DEL", owner(ix, "10.0.0.5", time.Time{}), "new")
	want(t, "a packet of second 15", owner(ix, "10.0.0.5", at(15)), "old")
	want(t, "a packet of second 21", owner(ix, "10.0.0.5", at(21)), "new")
	at(30)
	ix.Withdraw("new", SourceCNI)
	want(t, "freed", owner(ix, "10.0.0.5", time.Time{}), "world")
	want(t, "a late packet of second 29", owner(ix, "10.0.0.5", at(29)), "new")
	want(t, "a packet of second 31", owner(ix, "10.0.0.5", at(31)), "world")
	if ix.Withdraw("new", SourceCNI) {
		t.Error("a second DEL has nothing to withdraw")
	}
}

// An address lost to a later owner does not come back when that owner goes: it is nobody's.
func TestLostIsLost(t *testing.T) {
	ix := NewIndex("n1")
	at := clock(ix)
	ix.Upsert(cni("leaked", "job-1", at(10), "10.0.0.5"))
	ix.Upsert(cni("new", "ads-1", at(20), "10.0.0.5"))
	at(30)
	ix.Withdraw("new", SourceCNI)
	want(t, "after both", owner(ix, "10.0.0.5", time.Time{}), "world")
	ix.Upsert(cni("leaked", "job-1", at(10), "10.0.0.5")) // the same again
	want(t, "stale object repeated", owner(ix, "10.0.0.5", time.Time{}), "world")
	ix.Upsert(cni("leaked", "job-1", at(40), "10.0.0.5")) // a new tenure
	want(t, "claimed anew", owner(ix, "10.0.0.5", time.Time{}), "leaked")
}

func TestReorderedEvents(t *testing.T) {
	ix := NewIndex("n1")
	at := clock(ix)
	later, earlier := at(20), at(10)
	at(30)
	ix.Upsert(Workload{ID: "b", Namespace: "shop", Name: "b", Addrs: addrs("10.1.0.5"), Source: SourceGossip, Since: later})
	ix.Upsert(Workload{ID: "a", Namespace: "shop", Name: "a", Addrs: addrs("10.1.0.5"), Source: SourceGossip, Since: earlier})
	want(t, "news of the past", owner(ix, "10.1.0.5", time.Time{}), "b")
	ix.Withdraw("b", SourceGossip)
	want(t, "the past does not come back", owner(ix, "10.1.0.5", time.Time{}), "world")
}

// What CNI brings is one workload with what the inventory says of the same namespace and name.
func TestInventoryDescribes(t *testing.T) {
	ix := NewIndex("n1")
	at := clock(ix)
	ix.SetNamespaceLabels(map[string]Labels{"shop": {"team": "web"}})
	inventory := Workload{
		ID: "inventory:shop/cart-1", Namespace: "shop", Name: "cart-1", Source: SourceInventory,
		Labels: Labels{"app": "cart"}, Service: Service{"shop", "cart"}, Addrs: addrs("10.0.0.9"),
		Ports: []ContainerPort{{"http", TCP, 8080}},
	}
	at(5)
	ix.Upsert(inventory)
	want(t, "remote until it is attached", owner(ix, "10.0.0.9", time.Time{}), "inventory:shop/cart-1")
	ix.Upsert(cni("c1", "cart-1", at(10), "10.0.0.5"))
	v := ix.View()
	if len(v.Workloads) != 1 {
		t.Fatalf("got %d workloads, want 1", len(v.Workloads))
	}
	w := v.Workloads[0]
	if w.ID != "c1" || w.Service.String() != "shop/cart" || w.Labels["app"] != "cart" || w.PortNamed("http", TCP) != 8080 ||
		w.NamespaceLabels["team"] != "web" || w.NamespaceLabels["kubernetes.io/metadata.name"] != "shop" {
		t.Errorf("merged: %+v", w)
	}
	want(t, "the inventory's address", owner(ix, "10.0.0.9", time.Time{}), "world")

	inventory.Labels = Labels{"app": "cart2"} // labels that come late take force at once
	ix.Upsert(inventory)
	if got := ix.View().Find("shop", "cart-1").Labels["app"]; got != "cart2" {
		t.Errorf("label after the inventory changed: %s", got)
	}
	if ix.Upsert(inventory) {
		t.Error("the same again is no change")
	}
	at(20)
	ix.Withdraw("c1", SourceCNI)
	want(t, "ended here: the inventory's address is spent", owner(ix, "10.0.0.9", time.Time{}), "world")
	inventory.Addrs = addrs("10.0.0.10")
	ix.Upsert(inventory)
	want(t, "something new", owner(ix, "10.0.0.10", time.Time{}), "inventory:shop/cart-1")
}

func TestWeakerNeverOverwrites(t *testing.T) {
	ix := NewIndex("n1")
	at := clock(ix)
	ix.Upsert(cni("c1", "cart-1", at(10), "10.0.0.5"))
	if ix.Upsert(Workload{ID: "c1", Namespace: "x", Name: "y", Source: SourceGossip}) || ix.Withdraw("c1", SourceGossip) {
		t.Error("gossip changed what CNI said")
	}
	ix.Upsert(Workload{ID: "z", Namespace: "x", Name: "y", Source: SourceGossip, Since: at(20), Addrs: addrs("10.0.0.5")})
	want(t, "a later claim of a weaker source", owner(ix, "10.0.0.5", time.Time{}), "c1")
	at(30)
	ix.Withdraw("c1", SourceCNI)
	want(t, "the late local DEL frees it", owner(ix, "10.0.0.5", time.Time{}), "z")
}

func TestPeerPrecedence(t *testing.T) {
	ix := NewIndex("n1")
	at := clock(ix)
	ix.Upsert(cni("c1", "cart-1", at(1), "10.0.0.5", "fd00::5"))
	ix.Upsert(Workload{ID: "h", Namespace: "kube-system", Name: "proxy", HostNetwork: true, Addrs: addrs("192.168.1.10"), Source: SourceInventory})
	ix.SetNode(addrs("192.168.1.10", "10.0.0.1", "fe80::1%eth0", "::ffff:192.168.1.11"))
	ix.SetResolvers(addrs("10.96.0.10", "192.168.1.10", "10.0.0.5"))
	ix.SetServices([]KubeService{{Namespace: "shop", Name: "cart", Addrs: addrs("10.96.0.7", "10.96.0.10"), Ports: []ServicePort{{Port: 80}}}})
	ix.SetNetworks(map[string][]netip.Prefix{
		"lan":     {netip.MustParsePrefix("192.168.0.0/16")},
		"printer": {netip.MustParsePrefix("192.168.7.9/24")},
	})
	for addr, kind := range map[string]string{
		"10.0.0.5": "workload shop/cart", "::ffff:10.0.0.5": "workload shop/cart", "fd00::5%eth0": "workload shop/cart",
		"192.168.1.10": "node node", "fe80::1": "node node", "fe80::1%veth7": "node node", "192.168.1.11": "node node",
		"10.96.0.10": "dns dns", "10.96.0.7": "vip shop/cart",
		"192.168.9.1": "network lan", "192.168.7.1": "network printer", "169.254.169.254": "network metadata",
		"203.0.113.9": "world 203.0.113.9", "10.0.0.6": "world 10.0.0.6", "fe80::2": "world fe80::2",
	} {
		p := ix.View().Peer(netip.MustParseAddr(addr))
		want(t, addr, p.Kind.String()+" "+p.String(), kind)
	}
}
