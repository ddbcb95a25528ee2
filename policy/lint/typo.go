package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// vocabulary is which labels, namespaces and Services the inventory has.
type vocabulary struct {
	pods       map[string][]string // label of workloads: its values
	spaces     map[string][]string // label of namespaces: its values
	namespaces []string
	services   []string // "shop/cart"
}

func (l *linter) learnLabels() {
	if l.view == nil {
		return
	}
	pods, spaces := map[string]map[string]bool{}, map[string]map[string]bool{}
	names := map[string]bool{}
	for _, w := range l.view.Workloads {
		collect(pods, w.Labels)
		if !names[w.Namespace] {
			names[w.Namespace] = true
			collect(spaces, spaceLabels(w))
		}
	}
	l.known = vocabulary{pods: flat(pods), spaces: flat(spaces), namespaces: slices.Sorted(maps.Keys(names))}
	services := map[string]bool{}
	for _, name := range l.view.VIPNames {
		services[name] = true
	}
	for _, s := range l.view.Services {
		services[s.Namespace+"/"+s.Name] = true
	}
	l.known.services = slices.Sorted(maps.Keys(services))
}

func collect(into map[string]map[string]bool, from map[string]string) {
	for k, v := range from {
		if into[k] == nil {
			into[k] = map[string]bool{}
		}
		into[k][v] = true
	}
}

func flat(m map[string]map[string]bool) map[string][]string {
	out := make(map[string][]string, len(m))
	for k, values := range m {
		out[k] = slices.Sorted(maps.Keys(values))
	}
	return out
}

// use is one key or value as a selector writes it.
type use struct {
	key, value string // value empty: the key alone
	path       string
	keyPath    string
	excludes   bool // NotIn, DoesNotExist
}

func uses(path string, s *metav1.LabelSelector) []use {
	if s == nil {
		return nil
	}
	var out []use
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		at := fmt.Sprintf("%s.matchLabels[%s]", path, k)
		out = append(out, use{key: k, value: s.MatchLabels[k], path: at, keyPath: at})
	}
	for i, e := range s.MatchExpressions {
		at := fmt.Sprintf("%s.matchExpressions[%d]", path, i)
		not := e.Operator == metav1.LabelSelectorOpNotIn || e.Operator == metav1.LabelSelectorOpDoesNotExist
		if len(e.Values) == 0 {
			out = append(out, use{key: e.Key, path: at + ".key", keyPath: at + ".key", excludes: not})
		}
		for j, v := range e.Values {
			out = append(out, use{key: e.Key, value: v, path: fmt.Sprintf("%s.values[%d]", at, j), keyPath: at + ".key", excludes: not})
		}
	}
	return out
}

// typos tells of labels that nobody carries while a nearly equal one is in use, and whether it did.
func (l *linter) typos(p *policy.Policy, path string, s *metav1.LabelSelector, known map[string][]string) bool {
	found := false
	for _, u := range uses(path, s) {
		found = l.typo(p, u, known) || found
	}
	return found
}

func (l *linter) typo(p *policy.Policy, u use, known map[string][]string) bool {
	values, has := known[u.key]
	if !has {
		near := policy.Nearest(u.key, slices.Sorted(maps.Keys(known)))
		if near == "" {
			return false
		}
		l.add(p, u.keyPath, checkTypo, "label %q is carried by nobody; %q is", u.key, near).fix("write %s", near).replace(u.key, near)
		return true
	}
	if u.value == "" || slices.Contains(values, u.value) {
		return false
	}
	near := policy.Nearest(u.value, values)
	if near == "" {
		return false
	}
	l.add(p, u.path, checkTypo, "nobody has label %s=%s; %s=%s is in use", u.key, u.value, u.key, near).fix("write %s", near).replace(u.value, near)
	return true
}

// negatives looks at what a selector that does match excludes: a mistyped exclusion excludes nobody.
func (l *linter) negatives(p *policy.Policy, path string, s *metav1.LabelSelector) {
	known := l.known.pods
	if strings.HasSuffix(path, "namespaceSelector") {
		known = l.known.spaces
	}
	for _, u := range uses(path, s) {
		if u.excludes {
			l.typo(p, u, known)
		}
	}
}
