package daemon

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// claims is whose the addresses are that nodes claim for their workloads; see [gossip.Claims].
type claims struct {
	mu   sync.Mutex
	list *gossip.Claims
	seen map[gossip.Dispute]*disputeSeen
}

type disputeSeen struct{ since, told time.Time }

const (
	// moveWait is for how long two nodes may claim one address before people are told: a pod that moved
	// is told by its new node first, now and then. Nobody has the address meanwhile.
	moveWait = 5 * time.Second
	// disputeEvery is how often people are told again of one that lasts.
	disputeEvery = time.Hour
	// disputesTold bounds the alerts of one look.
	disputesTold = 20
)

func newClaims(self string, blocks []netip.Prefix) claims {
	list := gossip.NewClaims(self)
	list.SetBlocks(self, blocks, time.Time{})
	return claims{list: list, seen: map[gossip.Dispute]*disputeSeen{}}
}

// grant gives those of the addresses that a node claims for a workload which are that workload's.
func (c *cluster) grant(owner, key string, w *identity.Workload) []netip.Addr {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if err := c.claims.list.Set(owner, key, w.Addrs, identityText(w)); err != nil {
		c.d.clusterAlarm(gossip.Alarm{Node: owner, Kind: gossip.AlarmFull, What: err.Error()})
	}
	return c.claims.list.Held(gossip.Ref{Node: owner, Key: key})
}

// ungrant takes note that a node claims nothing for a workload any more.
func (c *cluster) ungrant(owner, key string) {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	_ = c.claims.list.Set(owner, key, nil, "") // nothing is never too much
}

// grantBlocks takes note of the ranges that a node declares.
func (c *cluster) grantBlocks(owner string) {
	var blocks []netip.Prefix
	if value, there := c.State.Entry(owner, gossip.Endpoints, gossip.BlocksKey); there {
		var err error
		if blocks, err = gossip.DecodeBlocks(value); err != nil {
			c.d.clusterAlarm(gossip.Alarm{Node: owner, Kind: gossip.AlarmMalformed, What: err.Error()})
			return // those before it stand
		}
	}
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	c.claims.list.SetBlocks(owner, blocks, c.d.now())
}

// regrant gives the workloads of other nodes whose addresses were granted or taken away because of what
// somebody else claims.
func (c *cluster) regrant() []gossip.Ref {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	return c.claims.list.TakeChanged()
}

// lookAtClaims takes note of who lives, and tells people of claims that are not granted.
func (c *cluster) lookAtClaims(alive map[string]bool, owners []string) {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	for _, node := range c.claims.list.Nodes() {
		if node != c.d.cfg.Node && !slices.Contains(owners, node) {
			c.claims.list.Forget(node)
		}
	}
	for _, owner := range owners {
		c.claims.list.Alive(owner, alive[owner] || owner == c.d.cfg.Node)
	}
	c.tellDisputes(c.claims.list.Disputes())
}

func (c *cluster) tellDisputes(list []gossip.Dispute) {
	now, told := c.d.now(), 0
	still := map[gossip.Dispute]*disputeSeen{}
	for _, x := range list {
		seen := c.claims.seen[x]
		if seen == nil {
			seen = &disputeSeen{since: now}
		}
		still[x] = seen
		if x.Passing && now.Sub(seen.since) < moveWait || !seen.told.IsZero() && now.Sub(seen.told) < disputeEvery || told == disputesTold {
			continue
		}
		told++
		seen.told = now
		what := x.What
		if x.Key != "" {
			what = fmt.Sprintf("it claims an address for its workload %q: %s", x.Key, x.What)
		}
		c.d.alerts.Send(alert.Misconduct{Time: now, Other: x.Node, What: what, Mistaken: true}.Alert(c.d.cfg.Node))
	}
	c.claims.seen = still
	text := ""
	for _, x := range list {
		if !still[x].told.IsZero() {
			text = fmt.Sprintf("%d claims of other nodes are not granted; node %s: %s", len(list), x.Node, x.What)
			break
		}
	}
	c.d.warn("cluster claims", text)
}

// identityText is equal for workloads that policy cannot tell apart.
func identityText(w *identity.Workload) string {
	same := *w
	same.Name, same.Addrs = "-", nil
	value, err := encodeEndpoint(&same)
	if err != nil {
		return w.ID // like nobody else
	}
	sum := sha256.Sum256(value)
	return string(sum[:16])
}
