package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// hits counts what rules in force were used for on this node: by the ends that report, from the records
// of the flow log and the counters of the kernel's sets that are read for volumes anyway. So a rule's
// count costs packets nothing, and is as exact as an edge's. What a policy's text says counts from when
// it took force: another text begins anew.
type hits struct {
	mu     sync.Mutex
	of     map[policy.Key]*policyHits
	dirty  map[policy.Key]bool
	stored time.Time
}

// policyHits are the counts of one text of a policy.
type policyHits struct {
	Text  string    `json:"text"` // hex of the text's SHA-256
	Since time.Time `json:"since"`
	Rules []ruleHit `json:"rules,omitempty"` // of those that were used
	Rest  hit       `json:"rest"`            // what no rule allows where the policy isolates
}

type ruleHit struct {
	Ingress bool `json:"ingress,omitempty"`
	Index   int  `json:"index"`
	hit
}

// hit is what something was used for.
type hit struct {
	Allowed   uint64    `json:"allowed,omitempty"`
	Denied    uint64    `json:"denied,omitempty"`
	WouldDeny uint64    `json:"wouldDeny,omitempty"` // in mode learn and alert: let through
	Last      time.Time `json:"last,omitzero"`
}

func textSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// follow begins to count for policies that have taken force, and forgets those that are no more.
func (h *hits) follow(rb *rulebook, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.of {
		if _, held := rb.held[slot{Key: key}]; !held {
			delete(h.of, key)
			h.dirty[key] = true
		}
	}
	for s, p := range rb.held {
		if s.shadow {
			continue
		}
		sum := textSum(p.Text)
		if have := h.of[s.Key]; have == nil || have.Text != sum {
			h.of[s.Key] = &policyHits{Text: sum, Since: now}
			h.dirty[s.Key] = true
		}
	}
}

// restore takes over what a former daemon counted.
func (h *hits) restore(of map[policy.Key]policyHits) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of, h.dirty = make(map[policy.Key]*policyHits, len(of)), map[policy.Key]bool{}
	for key, p := range of {
		h.of[key] = &p
	}
}

// note counts a record for what decided it at the end that reports it.
func (h *hits) note(r *flow.Record, s policy.SideDecision) {
	n := max(r.Count, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	use := func(key policy.Key, x func(*policyHits) *hit) {
		p := h.of[key]
		if p == nil {
			return // it has just gone
		}
		u := x(p)
		switch {
		case s.Verdict == policy.Allow:
			u.Allowed += n
		case r.Event == flow.Denied:
			u.Denied += n
		default:
			u.WouldDeny += n
		}
		if r.Time.After(u.Last) {
			u.Last = r.Time
		}
		h.dirty[key] = true
	}
	if s.By != (policy.Key{}) {
		use(s.By, func(p *policyHits) *hit { return p.rule(r.Direction, s.Index) })
		return
	}
	for _, key := range s.Isolators {
		use(key, func(p *policyHits) *hit { return &p.Rest })
	}
}

func (p *policyHits) rule(d policy.Direction, index int) *hit {
	in := d == policy.Ingress
	i := slices.IndexFunc(p.Rules, func(r ruleHit) bool { return r.Ingress == in && r.Index == index })
	if i < 0 {
		i = len(p.Rules)
		p.Rules = append(p.Rules, ruleHit{Ingress: in, Index: index})
	}
	return &p.Rules[i].hit
}

// stats tells the counts of a policy in force, every rule in order; nil where none are kept.
func (h *hits) stats(p *policy.Policy) *api.PolicyStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	have := h.of[p.Key()]
	if have == nil {
		return nil
	}
	out := &api.PolicyStats{Since: have.Since, Rest: have.Rest.row()}
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		for i, r := range p.Rules(d) {
			row := api.RuleStats{Direction: d.String(), Index: i, Name: r.Name, Action: r.Action.String()}
			for _, x := range have.Rules {
				if x.Ingress == (d == policy.Ingress) && x.Index == i {
					row.Hits = x.row()
				}
			}
			out.Rules = append(out.Rules, row)
		}
	}
	return out
}

func (h *hit) row() api.Hits {
	out := api.Hits{Allowed: h.Allowed, Denied: h.Denied, WouldDeny: h.WouldDeny}
	if !h.Last.IsZero() {
		out.Last = &h.Last
	}
	return out
}

// hit counts a record for the rules of the end that reports it.
func (d *Daemon) hit(r *flow.Record, c policy.Connection) {
	if r.Sensor != flow.InNamespace || r.Direction != policy.Egress && r.Direction != policy.Ingress {
		return
	}
	switch r.Event {
	case flow.Birth, flow.Denied, flow.Usage:
		d.hits.note(r, d.rules.Load().set.EvaluateSide(d.index.View(), c, r.Direction))
	}
}
