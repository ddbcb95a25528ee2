package lint

import (
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// manners finds policies that say different things of how one side's denials are told: a side has one
// manner, and Drop holds.
func (l *linter) manners(s *policy.Set) {
	said := map[policy.OnDeny]bool{}
	for _, p := range s.Policies() {
		said[p.Spec.OnDeny] = true
	}
	if l.view == nil || !said[policy.Drop] || !said[policy.Reject] {
		return
	}
	told := map[policy.Key]bool{}
	for _, w := range l.view.Workloads {
		for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
			var drops *policy.Policy
			about := s.About(w, d)
			for _, p := range about {
				if p.Spec.OnDeny == policy.Drop && p.Denies(d) {
					drops = p
					break
				}
			}
			if drops == nil {
				continue
			}
			for _, p := range about {
				if p.Spec.OnDeny != policy.Reject || !p.Denies(d) || told[p.Key()] {
					continue
				}
				told[p.Key()] = true
				l.add(p, onDenyPath(p), checkOnDeny, "%s says Drop for %s of %s/%s, so nothing is rejected there",
					drops, d, w.Namespace, w.Name).fix("say the same in both, or leave it out of one")
			}
		}
	}
}

func onDenyPath(p *policy.Policy) string {
	if p.Kind == policy.KindPolicy {
		return "spec.onDeny"
	}
	return "metadata.annotations[" + policy.OnDenyAnnotation + "]"
}
