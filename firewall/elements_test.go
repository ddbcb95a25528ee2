package firewall

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Peers come and go, BULKHEAD_CHURN times (100000 for the whole of it); then the sets are as they
// were: nothing of a dead identity stays.
func TestElementsReturn(t *testing.T) {
	requireRoot(t)
	churn := 300
	if s := os.Getenv("BULKHEAD_CHURN"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		churn = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("BULKHEAD_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := testNamespace(t)
	ns, err := Open(Config{NetNS: path, Node: testNamespace(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	peers := map[int]bool{}
	apply := func() {
		var entries []policy.Entry
		for i := range 200 {
			if !peers[i] {
				continue
			}
			peer := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), 32)
			e := policy.Entry{Peer: peer, Protocol: identity.TCP, Port: 80, EndPort: 80}
			if i%5 == 0 { // a block with a range of ports
				e.Peer, e.EndPort = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 24), 90
			}
			entries = append(entries, e)
		}
		if _, err := ns.Apply(Compile(Spec{Mode: policy.Enforce, Sides: both(egress(entries...), ingress(entries...))})); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		peers[i] = true
	}
	apply()
	element := regexp.MustCompile(`10\.\d+\.\d+\.\d+`)
	count := func() int { return len(element.FindAllString(testIn(t, path, "nft", "list", "ruleset"), -1)) }
	before := count()
	for range churn {
		i := 20 + random.IntN(180)
		peers[i] = !peers[i]
		apply()
	}
	for i := range 200 {
		peers[i] = i < 20
	}
	apply()
	if after := count(); after != before || before == 0 {
		t.Errorf("%d elements after %d changes, %d before", after, churn, before)
	}
	if err := ns.Check(); err != nil {
		t.Error(err)
	}
}
