package netpol

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

const (
	probesPerSet = 160
	setsPerWorld = 25 // a new lab costs as much as ten sets
	usualBudget  = 25 * time.Second
)

// budget is how long random runs go on: BULKHEAD_BUDGET, a span such as 10m.
func budget(t *testing.T) time.Duration {
	text := os.Getenv("BULKHEAD_BUDGET")
	if text == "" {
		return usualBudget
	}
	span, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("BULKHEAD_BUDGET: %v", err)
	}
	return span
}

// TestRandom makes clusters and policies at random and compares the verdicts of evaluator and kernel.
// The first difference is made small, written down as files, and ends the test.
func TestRandom(t *testing.T) {
	needRoot(t)
	d, end := newDice(t), time.Now().Add(budget(t))
	var total tally
	for worlds := 0; time.Now().Before(end) && !t.Failed(); worlds++ {
		w := d.world()
		k, err := newKernel(t.Context(), lab.Options{Manifests: w.inventory})
		if err != nil {
			t.Fatalf("%v\n%s", err, w.inventory)
		}
		total.worlds++
		r := &trial{t: t, d: d, world: w, kernel: k, tally: &total}
		r.rounds(end)
		if err := k.close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d worlds, %d sets (%d of them by new labels), %d verdicts (%d allow, %d deny), %d probes whose answer is chance left out",
		total.worlds, total.sets, total.relabelled, total.allow+total.deny, total.allow, total.deny, total.chance)
}

type tally struct{ worlds, sets, relabelled, allow, deny, chance int }

// trial is one world with its lab.
type trial struct {
	t      *testing.T
	d      dice
	world  *world
	kernel *kernel
	eval   *evaluator
	tally  *tally
	before string // the policies before the present ones
}

// rounds tries sets of policies until the world has had its share, time is up, or something differs.
func (r *trial) rounds(end time.Time) {
	r.evaluate()
	for range setsPerWorld {
		if time.Now().After(end) || r.t.Failed() {
			return
		}
		list := r.d.policies()
		text, err := policy.MarshalAll(list)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.kernel.set(r.t.Context(), string(text)); err != nil {
			r.t.Fatalf("%v\n%s", err, text)
		}
		r.round(list, string(text))
		if !r.t.Failed() && r.d.chance(40) {
			// The same policies, other labels: what nobody applied must follow too.
			r.d.relabel(r.world)
			r.evaluate()
			r.tally.relabelled++
			ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
			err := r.kernel.describe(ctx, r.world.inventory)
			cancel()
			if err != nil {
				r.t.Fatal(err)
			}
			r.round(list, string(text))
		}
		r.before = string(text)
	}
}

// evaluate makes the side without a kernel see the world as it is now.
func (r *trial) evaluate() {
	var err error
	if r.eval, err = newEvaluator(r.world.inventory); err != nil {
		r.t.Fatal(err)
	}
}

// round compares both sides under the policies that are in force.
func (r *trial) round(list []policy.Policy, text string) {
	ctx := r.t.Context()
	probes, want, err := r.certain(text, r.d.probes(r.world, probesPerSet))
	if err != nil {
		r.t.Fatalf("%v\n%s", err, text)
	}
	got, err := r.kernel.settled(ctx, probes, want)
	if err != nil {
		r.t.Fatal(err)
	}
	r.tally.sets++
	for i := range got {
		switch {
		case !got[i].agree(want[i]):
			r.differs(list, text, probes[i], want[i], got[i])
			return
		case got[i] == "allow":
			r.tally.allow++
		case got[i] == "deny":
			r.tally.deny++
		}
	}
}

// certain leaves out probes whose answer is chance: through a Service's address to pods of which some
// let the client in and some do not, or to nobody at all.
func (r *trial) certain(text string, probes []probe) ([]probe, []verdict, error) {
	set, err := setOf(text)
	if err != nil {
		return nil, nil, err
	}
	want, _, err := r.eval.answer(set, probes)
	if err != nil {
		return nil, nil, err
	}
	var keep []probe
	var verdicts []verdict
	for i, p := range probes {
		if r.eval.chancy(set, p) {
			r.tally.chance++
			continue
		}
		keep, verdicts = append(keep, p), append(verdicts, want[i])
	}
	return keep, verdicts, nil
}

// chancy says whether a probe to a Service's address can end in more than one way.
func (e *evaluator) chancy(set *policy.Set, p probe) bool {
	backends, vip := e.backends(p)
	if !vip || len(backends) == 0 {
		return vip
	}
	if via := e.one(set, p); via.Err != nil || via.Decision.Egress.Verdict == policy.Deny {
		return false
	}
	seen := map[policy.Verdict]bool{}
	for _, b := range backends {
		a := e.one(set, b)
		if a.Err != nil {
			return true
		}
		seen[a.Decision.Ingress.Verdict] = true
	}
	return len(seen) > 1
}
