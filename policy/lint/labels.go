package lint

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// nameLabel is set on every namespace, to its name.
const nameLabel = "kubernetes.io/metadata.name"

// choice is which values of one label a selector admits, its absence counted as a value. Since a
// selector's terms are ANDed and speak of one key each, a selector is a choice for every key, and
// inclusion and overlap of selectors are those of their choices.
type choice struct {
	absent bool     // a workload without the label is admitted
	but    bool     // values lists what is not admitted, and all others are
	values []string // sorted, free of doubles
}

var anything = choice{absent: true, but: true}

func (c choice) admits(value string, has bool) bool {
	if !has {
		return c.absent
	}
	return slices.Contains(c.values, value) != c.but
}

func (c choice) empty() bool { return !c.absent && !c.but && len(c.values) == 0 }

// single says that one value only is admitted.
func (c choice) single() bool { return !c.absent && !c.but && len(c.values) == 1 }

func (c choice) and(d choice) choice {
	out := choice{absent: c.absent && d.absent}
	switch {
	case c.but && d.but:
		out.but, out.values = true, sortedUnion(c.values, d.values)
	case c.but:
		out.values = without(d.values, c.values)
	case d.but:
		out.values = without(c.values, d.values)
	default:
		out.values = slices.DeleteFunc(slices.Clone(c.values), func(v string) bool { return !slices.Contains(d.values, v) })
	}
	return out
}

// within says whether everything that c admits, d admits too.
func (c choice) within(d choice) bool {
	if c.absent && !d.absent {
		return false
	}
	switch {
	case c.but && d.but:
		return len(without(d.values, c.values)) == 0
	case c.but:
		return false // infinitely many values against a few
	}
	return !slices.ContainsFunc(c.values, func(v string) bool { return !d.admits(v, true) })
}

func sortedUnion(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func without(list, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(v string) bool { return slices.Contains(drop, v) })
}

// labels is a selector as choices by key. A key that is not there is free. The nil map admits all.
type labels map[string]choice

// readLabels reads a selector; nil admits all.
func readLabels(s *metav1.LabelSelector) labels {
	out := labels{}
	if s == nil {
		return out
	}
	for k, v := range s.MatchLabels {
		out.add(k, choice{values: []string{v}})
	}
	for _, e := range s.MatchExpressions {
		out.add(e.Key, termOf(e))
	}
	return out
}

func termOf(e metav1.LabelSelectorRequirement) choice {
	values := sortedUnion(e.Values, nil)
	switch e.Operator {
	case metav1.LabelSelectorOpIn:
		return choice{values: values}
	case metav1.LabelSelectorOpNotIn:
		return choice{absent: true, but: true, values: values}
	case metav1.LabelSelectorOpExists:
		return choice{but: true}
	case metav1.LabelSelectorOpDoesNotExist:
		return choice{absent: true}
	}
	return choice{}
}

func (l labels) add(key string, c choice) {
	if have, ok := l[key]; ok {
		c = have.and(c)
	}
	l[key] = c
}

func (l labels) of(key string) choice {
	if c, ok := l[key]; ok {
		return c
	}
	return anything
}

func (l labels) matches(have identity.Labels) bool {
	for k, c := range l {
		if v, has := have[k]; !c.admits(v, has) {
			return false
		}
	}
	return true
}

// contradiction gives a key for which no value is left, and absence neither; "" if there is none.
func (l labels) contradiction() string {
	for _, k := range slices.Sorted(maps.Keys(l)) {
		if l[k].empty() {
			return k
		}
	}
	return ""
}

// within says whether every workload that l admits, m admits too.
func (l labels) within(m labels) bool {
	for k, c := range m {
		if !l.of(k).within(c) {
			return false
		}
	}
	return true
}

// disjoint says that no workload can be admitted by both.
func (l labels) disjoint(m labels) bool {
	for k, c := range m {
		if l.of(k).and(c).empty() {
			return true
		}
	}
	return l.contradiction() != "" // also where m is free
}

// free says that the selector admits everything.
func (l labels) free() bool {
	for _, c := range l {
		if !c.absent || !c.but || len(c.values) > 0 {
			return false
		}
	}
	return true
}

// pods is which workloads are meant: labels of their namespaces and their own.
type pods struct {
	spaces labels
	own    labels
}

// inNamespace is pods of one namespace.
func inNamespace(name string, own labels) pods {
	return pods{labels{nameLabel: {values: []string{name}}}, own}
}

func (p pods) match(w *identity.Workload) bool {
	return !w.HostNetwork && p.matchWherever(w)
}

// matchWherever is match, without asking whether the workload has a network of its own.
func (p pods) matchWherever(w *identity.Workload) bool {
	return p.spaces.matches(spaceLabels(w)) && p.own.matches(w.Labels)
}

func spaceLabels(w *identity.Workload) identity.Labels {
	if w.NamespaceLabels[nameLabel] != "" {
		return w.NamespaceLabels
	}
	out := identity.Labels{nameLabel: w.Namespace}
	maps.Copy(out, w.NamespaceLabels)
	return out
}

func (p pods) within(q pods) bool { return p.spaces.within(q.spaces) && p.own.within(q.own) }

func (p pods) disjoint(q pods) bool { return p.spaces.disjoint(q.spaces) || p.own.disjoint(q.own) }

func (p pods) never() bool { return p.spaces.contradiction() != "" || p.own.contradiction() != "" }
