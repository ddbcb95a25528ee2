package lint

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Options are what [Check] has to be told beside policies and workloads.
type Options struct {
	Now    time.Time                                                // rules that ended before are expired; zero: dates are not looked at
	Soon   time.Duration                                            // a rule that ends within is noted; zero: 14 days
	Bound  int                                                      // how many pairs of rules are held against each other; zero: 5,000,000
	Used   func(p *policy.Policy, d policy.Direction, rule int) Use // when rules were used; nil: not known
	Idle   time.Duration                                            // how long a rule may be without use; zero: 30 days
	Strict bool                                                     // the view has a daemon's configuration: networks that are not in it are nobody, and NoDNS is so
}

const defaultSoon = 14 * 24 * time.Hour

// IgnoreAnnotation lists checks, parted by commas, that a policy's author has seen and wants: they
// are not told of that policy. "all" silences every check but those of this annotation.
const IgnoreAnnotation = "bulkhead.dev/lint-ignore"

// Check looks at every policy of a set, shadows too, on its own, beside the others, and, where a view
// is given, beside the workloads and Services in it. The findings are sorted by place. Its work is
// bounded: of sets so large that not every rule can be held against the others, a note says so.
func Check(s *policy.Set, v *identity.View, o Options) []Finding {
	if o.Soon == 0 {
		o.Soon = defaultSoon
	}
	if o.Idle == 0 {
		o.Idle = defaultIdle
	}
	if o.Bound == 0 {
		o.Bound = defaultBound
	}
	l := &linter{view: v, options: o}
	for _, p := range slices.Concat(s.Policies(), s.Shadows()) {
		l.policies = append(l.policies, p)
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			for i := range p.Rules(d) {
				r := readRule(p, d, i)
				r.index = len(l.rules)
				l.rules = append(l.rules, r)
			}
		}
	}
	l.learnLabels()
	l.learnDNS()
	for _, p := range l.policies {
		l.policy(p)
	}
	for _, r := range l.rules {
		l.rule(r)
	}
	l.order()
	l.manners(s)
	l.slips()
	return sortFindings(l.found)
}

// linter is one run of Check.
type linter struct {
	view     *identity.View // nil: nothing is known
	options  Options
	policies []*policy.Policy
	rules    []*rule
	known    vocabulary
	asking   asking
	pairs    int // of rules that were held against each other
	found    []Finding

	placed *policy.Policy // whose places these are
	places *policy.Positions
}

// add tells of a finding at a path of a policy, unless its author does not want to hear of it.
func (l *linter) add(p *policy.Policy, path, check, format string, args ...any) *Finding {
	kind := checkOf(check)
	f := Finding{Check: check, Severity: kind.Severity, Policy: p.Key().String(), Path: path, Message: fmt.Sprintf(format, args...)}
	f.File, f.Line, f.Column = splitPlace(l.at(p, path))
	if check != checkIgnore && ignores(p, check) {
		return &f
	}
	l.found = append(l.found, f)
	return &l.found[len(l.found)-1]
}

// at is where a field stands. Positions of the last policy are kept: most findings of one follow each
// other.
func (l *linter) at(p *policy.Policy, path string) string {
	if l.placed != p {
		l.placed, l.places = p, p.Positions()
	}
	return l.places.At(path)
}

func ignored(p *policy.Policy) []string {
	var out []string
	for _, name := range strings.Split(p.Annotations[IgnoreAnnotation], ",") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

func ignores(p *policy.Policy, check string) bool {
	names := ignored(p)
	return slices.Contains(names, check) || slices.Contains(names, "all")
}

// fix says what to do.
func (f *Finding) fix(format string, args ...any) *Finding {
	f.Fix = fmt.Sprintf(format, args...)
	return f
}

// replace says which value to put in the place of the one that is there.
func (f *Finding) replace(old, with string) *Finding {
	f.Old, f.New = old, with
	return f
}

func (f *Finding) as(s Severity) *Finding {
	f.Severity = s
	return f
}

// policy runs the checks of one policy on its own.
func (l *linter) policy(p *policy.Policy) {
	l.ignoreList(p)
	l.selected(p)
	l.converted(p)
	l.types(p)
	l.dns(p)
	l.mesh(p)
}

// rule runs the checks of one rule on its own.
func (l *linter) rule(r *rule) {
	l.expiry(r)
	l.unused(r)
	l.width(r)
	for i := range r.Peers {
		l.peer(r, i)
	}
	l.eitherOr(r)
	l.doubles(r)
	servers, known := l.servers(r)
	for i := range r.Ports {
		l.port(r, i, servers, known)
	}
}

func (l *linter) ignoreList(p *policy.Policy) {
	for _, name := range ignored(p) {
		if _, ok := find(name); !ok && name != "all" {
			f := l.add(p, "metadata.annotations["+IgnoreAnnotation+"]", checkIgnore, "%s names check %q, which does not exist", IgnoreAnnotation, name)
			if near := policy.Nearest(name, checkNames()); near != "" {
				f.fix("write %s", near)
			} else {
				f.fix("remove it; the checks are listed in the documentation of policy lint")
			}
		}
	}
}

// expiry: rules that have ended or soon will.
func (l *linter) expiry(r *rule) {
	if l.options.Now.IsZero() || r.Expires.IsZero() {
		return
	}
	path := r.path() + ".expires"
	switch left := r.Expires.Sub(l.options.Now); {
	case left <= 0:
		l.add(r.of, path, checkExpired, "the rule ended on %s and means nothing any more", day(r.Expires)).fix("remove it, or give it a later date")
	case left < l.options.Soon:
		l.add(r.of, path, checkExpires, "the rule ends on %s, in %s", day(r.Expires), inDays(left)).fix("give it a later date if it is still needed")
	}
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func inDays(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// converted passes on what reading the document had to settle. CIDRs with host bits are told by a
// check of their own.
func (l *linter) converted(p *policy.Policy) {
	for _, w := range p.Warnings {
		if !strings.Contains(w, "host bits") {
			l.add(p, "kind", checkConverted, "%s", w)
		}
	}
}
