package netpol

import (
	"encoding/json"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// shrinkTime bounds how long a difference is made smaller.
const shrinkTime = 2 * time.Minute

// differs reports one difference: as small a set of policies as still shows it, in files that both
// sides read.
func (r *trial) differs(list []policy.Policy, text string, p probe, want, got verdict) {
	r.t.Errorf("%s: kernel %s, evaluator %s", p, got, want)
	asFound := r.leave(text, p, want)
	if err := os.WriteFile(filepath.Join(asFound, "before.yaml"), []byte(r.before), 0o644); err != nil {
		r.t.Error(err)
	}
	if err := r.kernel.set(r.t.Context(), ""); err != nil {
		r.t.Error(err)
		return
	}
	if !r.shows(list, p) {
		r.t.Errorf("it does not differ where policies.yaml is put in force alone, but where before.yaml was in force before it: %s, the rules as they should be in %s",
			asFound, r.leave(text, p, want))
		return
	}
	end := time.Now().Add(shrinkTime)
	for again := true; again && time.Now().Before(end); {
		again = false
		for smaller := range shrunk(list) {
			if time.Now().After(end) {
				break
			}
			if r.shows(smaller, p) {
				list, again = smaller, true
				break
			}
		}
	}
	small, err := policy.MarshalAll(list)
	if err != nil {
		r.t.Fatal(err)
	}
	set, err := setOf(string(small))
	if err != nil {
		r.t.Fatal(err)
	}
	a := r.eval.one(set, p)
	dir := r.leave(string(small), p, verdict(a.Decision.Verdict.String()))
	r.t.Errorf("%s shows it; put it to both sides by hand:\n"+
		"  cd %s; bulkhead policy verdicts -f inventory.json -f policies.yaml --probes probes.json\n"+
		"  bulkhead-lab up -f inventory.json -f policies.yaml --name shrunk; bulkhead-lab probe --name shrunk --probes probes.json\n%s\n\t%s",
		p, dir, small, strings.Join(a.Decision.Reasons(), "\n\t"))
}

// shows says whether the kernel and the evaluator differ about a probe under these policies.
func (r *trial) shows(list []policy.Policy, p probe) bool {
	text, err := policy.MarshalAll(list)
	if err != nil {
		return false
	}
	probes, want, err := r.certain(string(text), []probe{p})
	if err != nil || len(probes) == 0 {
		return false
	}
	if err := r.kernel.set(r.t.Context(), string(text)); err != nil {
		r.t.Log(err)
		return false
	}
	got, err := r.kernel.settled(r.t.Context(), probes, want)
	return err == nil && !got[0].agree(want[0])
}

// leave writes a case as files outside of the test's own folder, which goes with the test.
func (r *trial) leave(text string, p probe, want verdict) string {
	dir, err := os.MkdirTemp("", "bulkhead-netpol-")
	if err != nil {
		r.t.Fatal(err)
	}
	p.Expect = string(want)
	question, err := json.Marshal([]probe{p})
	if err != nil {
		r.t.Fatal(err)
	}
	for name, content := range map[string]string{"inventory.json": r.world.inventory, "policies.yaml": text, "probes.json": string(question)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.rules(dir, p)
	return dir
}

// rules writes down what the kernel holds for the ends of a probe, guards included.
func (r *trial) rules(dir string, p probe) {
	for i, end := range []string{p.Client, p.Server} {
		for _, pod := range r.kernel.lab.Pods {
			is := func(a netip.Addr) bool { return a.String() == end }
			if pod.HostNetwork || pod.String() != end && !slices.ContainsFunc(pod.Addrs, is) {
				continue
			}
			for j, n := range r.kernel.lab.Nodes {
				if n.Name != pod.Node {
					continue
				}
				text, err := r.kernel.clients[j].Rules(r.t.Context(), pod.String(), true)
				if err != nil {
					text = err.Error()
				}
				name := filepath.Join(dir, []string{"client.nft", "server.nft"}[i])
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					r.t.Error(err)
				}
			}
		}
	}
}

// shrunk yields every list that is one step smaller.
func shrunk(list []policy.Policy) iter.Seq[[]policy.Policy] {
	return func(yield func([]policy.Policy) bool) {
		for i := range list {
			if !yield(slices.Delete(slices.Clone(list), i, i+1)) {
				return
			}
		}
		for i := range list {
			for p := range smallerPolicies(list[i]) {
				next := slices.Clone(list)
				next[i] = p
				if !yield(next) {
					return
				}
			}
		}
	}
}

func smallerPolicies(p policy.Policy) iter.Seq[policy.Policy] {
	return func(yield func(policy.Policy) bool) {
		plain := p
		plain.Spec.PodSelector, plain.Spec.Priority = metav1.LabelSelector{}, 0
		if p.Spec.NamespaceSelector != nil {
			plain.Spec.NamespaceSelector = &metav1.LabelSelector{}
		}
		if (!isEmpty(&p.Spec.PodSelector) || p.Spec.NamespaceSelector != nil && !isEmpty(p.Spec.NamespaceSelector)) && !yield(plain) {
			return
		}
		for rules := range smallerRules(p.Spec.Ingress) {
			q := p
			q.Spec.Ingress = rules
			if !yield(q) {
				return
			}
		}
		for rules := range smallerRules(p.Spec.Egress) {
			q := p
			q.Spec.Egress = rules
			if !yield(q) {
				return
			}
		}
	}
}

func smallerRules(rules []policy.Rule) iter.Seq[[]policy.Rule] {
	return func(yield func([]policy.Rule) bool) {
		for i := range rules {
			if !yield(slices.Delete(slices.Clone(rules), i, i+1)) {
				return
			}
		}
		for i := range rules {
			for r := range smallerRule(rules[i]) {
				next := slices.Clone(rules)
				next[i] = r
				if !yield(next) {
					return
				}
			}
		}
	}
}

func smallerRule(r policy.Rule) iter.Seq[policy.Rule] {
	return func(yield func(policy.Rule) bool) {
		for i := range r.Peers {
			q := r
			q.Peers = slices.Delete(slices.Clone(r.Peers), i, i+1)
			if !yield(q) {
				return
			}
		}
		for i := range r.Ports {
			q := r
			q.Ports = slices.Delete(slices.Clone(r.Ports), i, i+1)
			if !yield(q) {
				return
			}
		}
		for i, x := range r.Peers {
			if x.IPBlock == nil || len(x.IPBlock.Except) == 0 {
				continue
			}
			block := *x.IPBlock
			block.Except = nil
			q := r
			q.Peers = slices.Clone(r.Peers)
			q.Peers[i].IPBlock = &block
			if !yield(q) {
				return
			}
		}
	}
}

func isEmpty(s *metav1.LabelSelector) bool {
	return len(s.MatchLabels)+len(s.MatchExpressions) == 0
}

// TestShrinkTerminates: every step is smaller, and none leads back.
func TestShrinkTerminates(t *testing.T) {
	d := newDice(t)
	for range 50 {
		list := d.policies()
		for steps := 0; ; steps++ {
			if steps > 1000 {
				t.Fatalf("still shrinking %v", list)
			}
			next := slices.Collect(shrunk(list))
			if len(next) == 0 {
				break
			}
			list = pick(d, next...)
		}
		if len(list) != 0 {
			t.Fatalf("ends with %v, not with nothing", list)
		}
	}
}
