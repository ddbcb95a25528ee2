package lint

import (
	"slices"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// defaultBound is some seconds of work.
const defaultBound = 5_000_000

// compares says whether what q says counts where p is looked at: policies in force stand beside each
// other; a shadow is judged with what is in force, but for the policy whose place it takes.
func compares(q, p *policy.Policy) bool {
	switch {
	case q == p:
		return true
	case q.Shadow && !p.Shadow:
		return false
	case p.Shadow && !q.Shadow:
		return p.Key() != q.Key()
	}
	return true
}

// priority of the rule's policy; a policy of a namespace that states none has the default.
func (r *rule) priority() int32 {
	if r.of.Spec.Priority == 0 && !clusterWide(r.of) {
		return defaultPriority
	}
	return r.of.Spec.Priority
}

const defaultPriority = 1000

// before says whether b is always asked before a, so that what b decides a never sees.
//
// Tiers come in their order. In the admin and baseline tiers priority decides, then the name, then
// the place in the list; among namespaced policies priority, and at the same priority denies come
// before the rest.
func (b *rule) before(a *rule) bool {
	x, y := &b.of.Spec, &a.of.Spec
	if x.Tier != y.Tier {
		return tierOrder(x.Tier) < tierOrder(y.Tier)
	}
	if p, q := b.priority(), a.priority(); p != q {
		return p < q
	}
	if x.Tier == policy.NamespaceTier {
		return b.Action == policy.ActionDeny && a.Action != policy.ActionDeny
	}
	if b.of != a.of {
		return b.of.Name < a.of.Name
	}
	return b.at < a.at
}

func tierOrder(t policy.Tier) int {
	return map[policy.Tier]int{policy.AdminTier: 0, policy.NamespaceTier: 1, policy.BaselineTier: 2}[t]
}

// anchor is what a rule's subject asks for by one value: a namespace's name and a label. A rule can
// be covered only by those that ask for the same, or for nothing there.
type anchor struct {
	dir        policy.Direction
	space      string // empty: not one by its name
	key, value string // empty: no label by one value
}

// order holds rules against each other: what decides before them, what says the same, what the
// opposite.
func (l *linter) order() {
	live := slices.DeleteFunc(slices.Clone(l.rules), func(r *rule) bool {
		return !l.options.Now.IsZero() && r.expired(l.options.Now) || r.subject.never() || l.idle(r)
	})
	o := &ordering{
		linter: l, live: live, gone: map[*rule]bool{}, byAnchor: map[anchor][]*rule{}, byTier: map[policy.Tier]map[policy.Action][]*rule{},
	}
	for _, r := range live {
		a, t := r.anchors()[0], r.of.Spec.Tier
		o.byAnchor[a] = append(o.byAnchor[a], r)
		if o.byTier[t] == nil {
			o.byTier[t] = map[policy.Action][]*rule{}
		}
		o.byTier[t][r.Action] = append(o.byTier[t][r.Action], r)
	}
	for _, r := range slices.Backward(live) {
		o.judge(r)
	}
	o.collisions()
	if o.pairs > o.options.Bound && len(live) > 0 {
		l.add(live[0].of, "", checkTooMany, "%d rules are too many to hold each against all others; shadowed and redundant ones may be missing", len(live)).
			fix("lint one namespace at a time")
	}
}

// idle says whether policyTypes leaves the rule without effect.
func (l *linter) idle(r *rule) bool {
	return !clusterWide(r.of) && len(r.of.Spec.PolicyTypes) > 0 && !slices.Contains(r.of.Spec.PolicyTypes, typeOf(r.dir))
}

// anchors lists what rules that cover this one may ask for; the first is what it asks for itself.
func (r *rule) anchors() []anchor {
	spaces := []string{""}
	if c, ok := r.subject.spaces[nameLabel]; ok && c.single() {
		spaces = []string{c.values[0], ""}
	}
	var keys []string
	for k, c := range r.subject.own {
		if c.single() {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []anchor
	for _, space := range spaces {
		for _, k := range keys {
			out = append(out, anchor{r.dir, space, k, r.subject.own[k].values[0]})
		}
		out = append(out, anchor{dir: r.dir, space: space})
	}
	return out
}

// ordering is the state of one run of order.
type ordering struct {
	*linter
	live     []*rule
	byAnchor map[anchor][]*rule
	byTier   map[policy.Tier]map[policy.Action][]*rule
	gone     map[*rule]bool // reported as without effect: they cover nothing any more
}

// candidates calls see for every rule that may cover r.
func (o *ordering) candidates(r *rule, see func(*rule)) {
	for _, a := range r.anchors() {
		for _, b := range o.byAnchor[a] {
			if o.pairs++; o.pairs > o.options.Bound {
				return
			}
			if b != r && !o.gone[b] && b.Action != policy.ActionPass && compares(b.of, r.of) && b.outlives(r) && r.touches(b) && r.subject.within(b.subject) {
				see(b)
			}
		}
	}
}

// judge finds out whether r ever decides anything, and whether it says what others say.
func (o *ordering) judge(r *rule) {
	if slices.ContainsFunc(r.peers, emptyBlock) {
		return // told of already
	}
	var before, same []*rule
	o.candidates(r, func(b *rule) {
		switch {
		case b.before(r):
			if b.of.Spec.Tier == r.of.Spec.Tier || b.of.Spec.Tier == policy.AdminTier && !o.passed(b, r) {
				before = append(before, b)
			}
		case b.Action == r.Action && b.of.Spec.Tier == r.of.Spec.Tier && !(r.coveredBy(b) && b.coveredBy(r) && b.index > r.index) && !o.between(r, b):
			same = append(same, b)
		}
	})
	if used, all := cover(r, before); all {
		o.gone[r] = true
		o.dead(r, used)
		return
	}
	same = slices.DeleteFunc(append(same, before...), func(b *rule) bool { return b.Action != r.Action })
	if used, all := cover(r, same); all {
		o.gone[r] = true
		o.redundant(r, used)
	}
}

// dead tells of a rule that others always answer before.
func (o *ordering) dead(r *rule, by []*rule) {
	first := by[0]
	if !slices.ContainsFunc(by, func(b *rule) bool { return b.Action != r.Action }) {
		o.redundant(r, by)
		return
	}
	equal := first.of.Spec.Tier == r.of.Spec.Tier && first.priority() == r.priority() && first.coveredBy(r)
	if equal && len(by) == 1 && first.of.Spec.Tier == policy.NamespaceTier {
		o.add(r.of, r.path(), checkContradiction, "it allows exactly what %s denies at the same priority; the denial wins", first).
			fix("remove one of them, or give one policy a lower priority number")
		return
	}
	f := o.add(r.of, r.path(), checkShadowed, "it never decides: everything that it %s is %s before by %s", verb(r.Action), done(first.Action), names(by))
	if r.of.Spec.Tier == first.of.Spec.Tier {
		f.fix("remove it, or have it asked earlier")
	} else {
		f.fix("remove it, or have the %s tier pass it on", first.of.Spec.Tier)
	}
}

func verb(a policy.Action) string {
	return map[policy.Action]string{policy.ActionAllow: "allows", policy.ActionDeny: "denies", policy.ActionPass: "passes on"}[a]
}

func done(a policy.Action) string {
	return map[policy.Action]string{policy.ActionAllow: "allowed", policy.ActionDeny: "denied", policy.ActionPass: "passed on"}[a]
}

// names lists rules for people: "shop/a ingress[0], shop/b ingress[2]".
func names(list []*rule) string {
	out := make([]string, len(list))
	for i, r := range list {
		out[i] = r.String()
	}
	return some(out)
}

func (o *ordering) redundant(r *rule, by []*rule) {
	f := o.add(r.of, r.path(), checkRedundant, "everything that it %s is %s already by %s", verb(r.Action), done(r.Action), names(by))
	f.fix("remove it, unless the others may go before it does")
	if slices.ContainsFunc(by, func(b *rule) bool { return b.of != r.of }) {
		f.as(Note)
	}
}

// passed says whether a rule that is asked before b may hand what r matches to the next tier.
func (o *ordering) passed(b, r *rule) bool {
	return o.overlaps(r, o.byTier[policy.AdminTier][policy.ActionPass], func(x *rule) bool { return x.before(b) })
}

// between says whether a rule of another answer may decide some of what r matches after r and before
// b: then r is needed although b says the same.
func (o *ordering) between(r, b *rule) bool {
	if r.of.Spec.Tier == policy.NamespaceTier && r.priority() == b.priority() {
		return false
	}
	for action, list := range o.byTier[r.of.Spec.Tier] {
		if action != r.Action && o.overlaps(r, list, func(x *rule) bool { return !x.before(r) && x.before(b) }) {
			return true
		}
	}
	return false
}

// overlaps says whether one of the rules that count may match something that r matches. When the
// bound of comparisons is reached the answer is yes, with which nothing is told.
func (o *ordering) overlaps(r *rule, list []*rule, counts func(*rule) bool) bool {
	for _, x := range list {
		if o.pairs++; o.pairs > o.options.Bound {
			return true
		}
		if counts(x) && !x.disjoint(r) {
			return true
		}
	}
	return false
}

// collisions tells of cluster-wide policies of the same tier and priority that answer some
// connection differently.
func (o *ordering) collisions() {
	type level struct {
		tier     policy.Tier
		priority int32
	}
	groups := map[level][]*rule{}
	for _, r := range o.live {
		if r.of.Spec.Tier != policy.NamespaceTier {
			k := level{r.of.Spec.Tier, r.of.Spec.Priority}
			groups[k] = append(groups[k], r)
		}
	}
	told := map[[2]*policy.Policy]bool{}
	for _, list := range groups {
		for i, a := range list {
			for _, b := range list[:i] {
				if o.pairs++; o.pairs > o.options.Bound {
					return
				}
				pair := [2]*policy.Policy{a.of, b.of}
				if a.of == b.of || told[pair] || a.Action == b.Action || !compares(b.of, a.of) || a.disjoint(b) {
					continue
				}
				told[pair] = true
				o.add(a.of, "spec.priority", checkCollision, "%s and %s have the same priority %d and answer differently; the name decides which is asked first", a, b, a.of.Spec.Priority).
					fix("give one of them another priority")
			}
		}
	}
}
