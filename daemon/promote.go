package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/simulate"
)

// planPromote puts shadows in force in the place of what holds under the same name. Unless the caller
// says now, what they have seen must speak for it; with after they wait until it does.
func (d *Daemon) planPromote(r api.ApplyRequest) (*plan, error) {
	p := d.newPlan(causePromote)
	keys, err := p.before.pick(r.Names, func(s slot) bool { return s.shadow }, "no shadow of it; bulkhead policy shadow lists those that are")
	if err != nil {
		return nil, err
	}
	var of []slot
	for _, key := range keys {
		of = append(of, slot{key, true})
		if err := p.promote(key); err != nil {
			return nil, err
		}
	}
	if r.Now {
		return p, nil
	}
	if r.After > 0 {
		return d.planArm(p, of, r.After)
	}
	if missing := d.missing(p.before, of, 0); len(missing) > 0 {
		return nil, api.Errorf(api.Conflict, "%s stays a shadow: %s; to put it in force all the same: --now", slot{Key: keys[0]}, strings.Join(missing, "; "))
	}
	return p, nil
}

// promote makes a shadow what is wanted in force.
func (p *plan) promote(key policy.Key) error {
	shadow := p.held[slot{key, true}]
	if shadow.from != sourceAPI {
		return api.Errorf(api.Conflict, "%s is held by %s; set its mode to enforce there", slot{key, true}, shadow.from)
	}
	if now, held := p.held[slot{Key: key}]; held && now.from != sourceAPI {
		return api.Errorf(api.Conflict, "%s is held by %s; put the shadow's text there", slot{Key: key}, now.from)
	}
	enforced, err := enforce(shadow.Policy)
	if err != nil {
		return api.Errorf(api.Internal, "%v", err)
	}
	delete(p.held, slot{key, true})
	p.held[slot{Key: key}] = heldPolicy{enforced, sourceAPI, p.at}
	return nil
}

// planArm changes no policy: the shadows take force when their evidence speaks for it.
func (d *Daemon) planArm(from *plan, of []slot, after uint64) (*plan, error) {
	p := d.newPlan(causePromote)
	p.arm, p.change.Evidence = map[slot]uint64{}, map[string]*StoredEvidence{}
	for _, at := range of {
		e := d.shadows.of(at)
		if e == nil {
			return nil, api.Errorf(api.NotFound, "%s has seen nothing yet; ask again", at)
		}
		e.After = after
		p.arm[at], p.change.Evidence[at.store()] = after, e
	}
	p.result.Missing = d.missing(from.before, of, after)
	return p, nil
}

// arm makes shadows take force by themselves.
func (s *shadows) arm(of map[slot]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, after := range of {
		if e := s.seen[at]; e != nil {
			e.After = after
		}
	}
}

// promoteArmed puts those shadows in force that waited for evidence and have it now.
func (d *Daemon) promoteArmed(ctx context.Context) {
	d.change.Lock()
	defer d.change.Unlock()
	if d.pending.Load() != nil {
		return
	}
	for _, at := range d.shadows.armed() {
		rb := d.rules.Load()
		e := d.shadows.of(at)
		if e == nil || len(d.missing(rb, []slot{at}, e.After)) > 0 {
			continue
		}
		p := d.newPlan(fmt.Sprintf("%s of %d connections", causeEvidence, e.Passed))
		err := p.promote(at.Key)
		if err == nil {
			err = p.finish()
		}
		if err == nil {
			_, err = d.enact(ctx, p)
		}
		text := ""
		if err != nil {
			text = fmt.Sprintf("%s has the evidence it waited for and cannot take force: %v", at, err)
		}
		d.warn("promote "+at.store(), text)
	}
}

// armed lists the shadows that have the connections they wait for.
func (s *shadows) armed() []slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []slot
	for at, e := range s.seen {
		if e.After > 0 && e.Passed >= e.After {
			out = append(out, at)
		}
	}
	return out
}

// neededFor is how many connections a shadow is to see pass.
func (d *Daemon) neededFor(e *StoredEvidence) uint64 {
	if e.After > 0 {
		return e.After
	}
	return d.cfg.PromoteConnections
}

// missing says, a sentence each, what keeps shadows from being promoted together: what is unproven, and
// what they would deny.
func (d *Daemon) missing(rb *rulebook, of []slot, need uint64) []string {
	return append(d.unproven(rb, of, need), d.stillDenied(rb, of, d.edges())...)
}

// unproven says what shadows have not seen enough of: connections (need of each, 0: as configured), a
// life phase, or time.
func (d *Daemon) unproven(rb *rulebook, of []slot, need uint64) []string {
	var out []string
	for _, at := range of {
		e := d.shadows.of(at)
		if e == nil {
			return append(out, "it has seen nothing yet")
		}
		if need == 0 {
			need = d.neededFor(e)
		}
		if e.Passed < need {
			out = append(out, fmt.Sprintf("%d of %d connections would pass so far", e.Passed, need))
		}
		if age := d.now().Sub(e.Since); age < d.cfg.PromoteAge {
			out = append(out, fmt.Sprintf("it has been a shadow for %v of %v", age.Round(time.Second), d.cfg.PromoteAge))
		}
		out = append(out, d.unseenPhases(rb, at, e)...)
	}
	return out
}

// unseenPhases says which phases in the life of the selected services were not seen.
func (d *Daemon) unseenPhases(rb *rulebook, at slot, e *StoredEvidence) []string {
	phases := map[identity.Service]ServicePhase{}
	steady := uint64(0)
	for _, p := range e.Phases {
		phases[p.Service] = p
		steady += p.Steady
	}
	var out []string
	if steady == 0 {
		out = append(out, fmt.Sprintf("no connection of a workload was seen that ran longer than %v", startPhase))
	}
	unseen := map[identity.Service]bool{}
	for _, w := range d.index.View().Workloads {
		if !w.Local || !rb.trials.has(at, w) || phases[w.Service].Start {
			continue
		}
		if _, told := unseen[w.Service]; !told {
			unseen[w.Service] = true
		}
		if d.startSeen(w.ID) && !w.Since.Before(e.Since) {
			unseen[w.Service] = false
		}
	}
	var names []string
	for _, s := range sortedServices(unseen) {
		if unseen[s] {
			names = append(names, s.String())
		}
	}
	if len(names) > 0 {
		out = append(out, fmt.Sprintf("no workload of %s has started since it was applied", someNames(names)))
	}
	return out
}

// has says whether a shadow has a say on a workload.
func (t *trials) has(at slot, w *identity.Workload) bool {
	for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
		for _, s := range t.selecting(w, dir) {
			if s == at {
				return true
			}
		}
	}
	return false
}

// stillDenied says what the policies would deny with these shadows in force, and no other ones, of what
// was seen since they are there. Each edge is judged anew: what an edit or another policy allows by now
// keeps nobody. Beside the edges that the shadows kept themselves, those given are judged.
func (d *Daemon) stillDenied(rb *rulebook, of []slot, edges []flow.Edge) []string {
	if len(edges) == 0 && !slices.ContainsFunc(of, d.shadows.denies) {
		return nil
	}
	view := d.index.View()
	var seen []simulate.Edge
	kept := map[flow.Key]bool{}
	first := d.now()
	var out []string
	for _, at := range of {
		e := d.shadows.of(at)
		if e == nil {
			continue
		}
		if e.Since.Before(first) {
			first = e.Since
		}
		for _, x := range e.Edges {
			if !x.Opened && !kept[x.Key] {
				kept[x.Key] = true
				s := seenEdge(view, &flow.Edge{Key: x.Key})
				s.Count, s.Last = x.Count, x.Last
				seen = append(seen, s)
			}
		}
		if e.Beyond > 0 {
			out = append(out, fmt.Sprintf("%d differences found no room to be kept apart", e.Beyond))
		}
	}
	for i := range edges {
		if e := &edges[i]; e.Allowed() && e.Last.After(first) && !kept[e.Key] {
			seen = append(seen, seenEdge(view, e))
		}
	}
	m := d.modes.Load()
	now, then := world(view, rb.set, m), world(view, rb.promoted(of...), m)
	for _, c := range simulate.Compare(&now, then, seen).Breaks {
		out = append(out, fmt.Sprintf("it would deny %s (x%d, last at %s): %s", nameOfEdge(&c.Edge), c.Count, c.Last.UTC().Format(time.RFC3339), c.Reason))
	}
	return out
}

// denies says that a shadow has seen what it would deny.
func (s *shadows) denies(at slot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[at] != nil && s.seen[at].Denied > 0
}

// someNames joins names, the first few of them.
func someNames(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// enforce is a shadow as a policy in force. Its text says so too: the one word that made it a shadow is
// exchanged, everything else, comments included, stays as it was written.
func enforce(p policy.Policy) (policy.Policy, error) {
	out := p
	out.Shadow = false
	text, err := enforcedText(p.Text)
	if err != nil {
		return p, fmt.Errorf("%s: %w", p.Key(), err)
	}
	list, err := policy.Parse(p.Source, []byte(text))
	if err != nil || len(list) != 1 || list[0].Shadow || list[0].Key() != p.Key() {
		return p, fmt.Errorf("%s: its text cannot be made one in force (%v); apply it with mode enforce", p.Key(), err)
	}
	out.Text, out.Spec, out.Annotations = text, list[0].Spec, list[0].Annotations
	return out, nil
}

// enforcedText exchanges the value of spec.mode, or of the annotation that stands for it.
func enforcedText(text string) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", err
	}
	lines := strings.SplitAfter(text, "\n")
	for _, path := range [][]string{{"spec", "mode"}, {"metadata", "annotations", policy.ModeAnnotation}} {
		n := nodeAt(&doc, path)
		if n == nil || n.Value != policy.ModeShadow {
			continue
		}
		if n.Line > len(lines) {
			return "", fmt.Errorf("line %d of its text is not there", n.Line)
		}
		line := []rune(lines[n.Line-1])
		if n.Column > len(line) {
			return "", fmt.Errorf("column %d of line %d of its text is not there", n.Column, n.Line)
		}
		rest := strings.Replace(string(line[n.Column-1:]), policy.ModeShadow, policy.ModeEnforce, 1)
		lines[n.Line-1] = string(line[:n.Column-1]) + rest
	}
	return strings.Join(lines, ""), nil
}

// nodeAt walks down the keys of mappings.
func nodeAt(n *yaml.Node, path []string) *yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
next:
	for _, key := range path {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				n = n.Content[i+1]
				continue next
			}
		}
		return nil
	}
	return n
}
