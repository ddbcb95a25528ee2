package policy

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// selector is a label selector that has been checked. "A label selector is a label query over a set
// of resources. The result of matchLabels and matchExpressions are ANDed. An empty label selector
// matches all objects. A null label selector matches no objects." The null one is a nil pointer
// here, and means "not asked" where it is beside another selector.
type selector struct{ terms []term }

type term struct {
	key    string
	op     metav1.LabelSelectorOperator
	values []string
}

// compileSelector reads a selector that check has passed.
func compileSelector(s *metav1.LabelSelector) *selector {
	if s == nil {
		return nil
	}
	out := &selector{}
	for _, k := range sortedKeys(s.MatchLabels) {
		// "matchLabels is a map of {key,value} pairs. A single {key,value} in the matchLabels map is
		// equivalent to an element of matchExpressions, whose key field is "key", the operator is
		// "In", and the values array contains only "value"."
		out.terms = append(out.terms, term{k, metav1.LabelSelectorOpIn, []string{s.MatchLabels[k]}})
	}
	for _, e := range s.MatchExpressions {
		out.terms = append(out.terms, term{e.Key, e.Operator, slices.Clone(e.Values)})
	}
	return out
}

func (s *selector) empty() bool { return len(s.terms) == 0 }

func (s *selector) matches(l identity.Labels) bool {
	for i := range s.terms {
		if !s.terms[i].matches(l) {
			return false
		}
	}
	return true
}

// matches: a label that is not there fulfils NotIn and DoesNotExist, as labels.Requirement.Matches
// of k8s.io/apimachinery has it. An operator that is none matches nothing.
func (t *term) matches(l identity.Labels) bool {
	value, has := l[t.key]
	switch t.op {
	case metav1.LabelSelectorOpIn:
		return has && slices.Contains(t.values, value)
	case metav1.LabelSelectorOpNotIn:
		return !has || !slices.Contains(t.values, value)
	case metav1.LabelSelectorOpExists:
		return has
	case metav1.LabelSelectorOpDoesNotExist:
		return !has
	}
	return false
}
