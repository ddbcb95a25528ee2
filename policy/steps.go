package policy

import "fmt"

// explain writes down what decided, and the stations on the way.
func (s *side) explain(q *ask, f found) {
	if f.allow {
		s.Verdict = Allow
	} else {
		s.OnDeny = s.lineup.onDeny()
	}
	if f.builtIn == BuiltInSelf || f.builtIn == BuiltInNode {
		s.Rule, s.Reason = f.builtIn, builtInReasons[f.builtIn]
		s.step("built-in", nil, "allow", s.Reason)
		return
	}
	switch {
	case f.passed != nil:
		s.step("admin", f.passed, "pass", fmt.Sprintf("%s passes %s on %s on to the namespaced policies", f.passed.name, otherName(q), portName(q)))
	case f.rule != nil && f.rule.policy.Spec.Tier == AdminTier:
	case len(s.admin) > 0:
		s.step("admin", nil, "no match", fmt.Sprintf("none of %d rules matches", len(s.admin)))
	}
	if f.rule == nil || f.rule.policy.Spec.Tier != AdminTier {
		for _, c := range s.isolators {
			s.Steps = append(s.Steps, Step{Tier: "namespace", Policy: c.String(), Source: c.Source, Outcome: "isolate",
				Text: fmt.Sprintf("%s isolates %s: what nothing allows is denied", c, q.dir)})
		}
	}
	switch {
	case f.rule != nil:
		s.ruled(q, f.rule)
	case f.builtIn != "":
		s.Rule, s.Reason = f.builtIn, builtInReasons[f.builtIn]
		s.step("built-in", nil, "allow", s.Reason)
	case f.allow:
		s.Reason = fmt.Sprintf("no policy isolates %s of %s/%s, and no rule denies %s on %s", q.dir, q.subject.Namespace, q.subject.Name, otherName(q), portName(q))
		s.step("default", nil, "allow", s.Reason)
	default:
		s.Reason, s.Nearest = s.why(q)
		s.step("default", nil, "deny", s.Reason)
		s.Severity, s.Note = s.ofIsolators()
		for _, c := range s.isolators {
			s.Isolators = append(s.Isolators, c.Key())
		}
	}
}

// ruled is the decision of a written rule.
func (s *side) ruled(q *ask, r *rule) {
	s.Rule, s.Severity, s.Note = r.name, r.severity, r.note
	s.By, s.Index = r.policy.Key(), r.index
	verb, outcome := "allows", "allow"
	switch r.action {
	case ActionDeny:
		verb, outcome = "denies", "deny"
	case ActionPass:
		verb = "passes, to the default which allows,"
	}
	s.Reason = fmt.Sprintf("%s %s %s on %s", r.name, verb, otherName(q), portName(q))
	if r.note != "" {
		s.Reason += ": " + r.note
	}
	s.step(r.policy.Spec.Tier.String(), r, outcome, s.Reason)
}

// ofIsolators is what the policies say that an alert about a denial by default should carry: the first
// that says anything.
func (s *side) ofIsolators() (severity, note string) {
	for _, c := range s.isolators {
		if c.Spec.Severity != "" || c.Spec.Reason != "" {
			return c.Spec.Severity, c.Spec.Reason
		}
	}
	return "", ""
}
