package lint

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// maxWords is up to how many different words are compared with each other: more are generated, and
// comparing them all would take the square of their number.
const maxWords = 2000

// word is a label's key, or a value of it, as policies use it.
type word struct {
	of, key, value string // of workloads or namespaces; value empty: the key itself
}

func (w word) text() string {
	if w.value == "" {
		return w.key
	}
	return w.value
}

// group is the words that w could be mistaken for.
func (w word) group() word {
	if w.value == "" {
		return word{of: w.of}
	}
	return word{of: w.of, key: w.key, value: "*"}
}

// slips holds the labels of policies against each other where there is no inventory: one that is
// used once, and differs by one letter from one that is used more often, is noted.
func (l *linter) slips() {
	if l.view != nil {
		return
	}
	count := map[word]int{}
	groups := map[word][]word{}
	learn := func(w word) {
		if count[w]++; count[w] == 1 {
			groups[w.group()] = append(groups[w.group()], w)
		}
	}
	l.everySelector(func(_ *policy.Policy, of string, u use) {
		learn(word{of: of, key: u.key})
		if u.value != "" {
			learn(word{of, u.key, u.value})
		}
	})
	l.everySelector(func(p *policy.Policy, of string, u use) {
		w, path := word{of, u.key, u.value}, u.path
		if key := (word{of: of, key: u.key}); count[key] == 1 {
			w, path = key, u.keyPath
		}
		near, ok := slip(w, groups[w.group()], count)
		if count[w] != 1 || !ok {
			return
		}
		l.add(p, path, checkTypo, "label %s of %s is used here only; %s is used %d times", w.name(), of, near.name(), count[near]).
			fix("write %s if it is meant", near.text()).replace(w.text(), near.text()).as(Note)
	})
}

func (w word) name() string {
	if w.value == "" {
		return w.key
	}
	return w.key + "=" + w.value
}

// slip finds a word that is used more than once and that w misses by one letter.
func slip(w word, among []word, count map[word]int) (word, bool) {
	if len(among) > maxWords {
		return word{}, false
	}
	i := slices.IndexFunc(among, func(x word) bool { return count[x] > 1 && oneLetter(w.text(), x.text()) })
	if i < 0 {
		return word{}, false
	}
	return among[i], true
}

// everySelector calls see for every key and value of every selector.
func (l *linter) everySelector(see func(p *policy.Policy, of string, u use)) {
	each := func(p *policy.Policy, of, path string, s *metav1.LabelSelector) {
		for _, u := range uses(path, s) {
			see(p, of, u)
		}
	}
	for _, p := range l.policies {
		each(p, "workloads", "spec.podSelector", &p.Spec.PodSelector)
		each(p, "namespaces", "spec.namespaceSelector", p.Spec.NamespaceSelector)
	}
	for _, r := range l.rules {
		for i, x := range r.Peers {
			path := r.peerPath(i)
			each(r.of, "workloads", fmt.Sprintf("%s.podSelector", path), x.PodSelector)
			each(r.of, "namespaces", fmt.Sprintf("%s.namespaceSelector", path), x.NamespaceSelector)
		}
	}
}
