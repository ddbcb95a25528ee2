package daemon

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// sourceAPI is the source of policies that did not come from the watched folder.
	sourceAPI = "api"
	// maxPolicies bounds the policies in force and the shadows together.
	maxPolicies = 20_000
)

// rulebook is the policies in force and the shadows, and where each came from, as it is at a time. It
// never changes: a change makes another.
type rulebook struct {
	full   *policy.Set // with what has expired, and the shadows
	set    *policy.Set // what holds
	trials *trials     // nil: no shadows
	held   map[slot]heldPolicy
	ends   []ending // of rules in force, by time
	at     time.Time
}

type heldPolicy struct {
	policy.Policy
	from    string // sourceAPI, or the file of the watched folder
	applied time.Time
}

// same says that two policies of one slot are one: the text and who holds it.
func (h heldPolicy) same(o heldPolicy) bool { return h.from == o.from && sameText(h.Text, o.Text) }

func sameText(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }

// newRulebook makes a rulebook of policies whose slots differ, as it is at a time.
func newRulebook(held map[slot]heldPolicy, at time.Time) (*rulebook, error) {
	if len(held) > maxPolicies {
		return nil, fmt.Errorf("%d policies, bound %d; nothing was changed", len(held), maxPolicies)
	}
	list := make([]policy.Policy, 0, len(held))
	for s, h := range held {
		h.Policy.Shadow = s.shadow
		list = append(list, h.Policy)
	}
	full, err := policy.NewSet(list...)
	if err != nil {
		return nil, err
	}
	return (&rulebook{full: full, held: held, ends: endings(held)}).as(at)
}

// as is the rulebook at another time.
func (rb *rulebook) as(at time.Time) (*rulebook, error) {
	next := &rulebook{full: rb.full, set: rb.full.At(at), held: rb.held, ends: rb.ends, at: at}
	var err error
	next.trials, err = newTrials(next)
	return next, err
}

// promoted is what holds with some shadows in the place of what is in force under the same key.
func (rb *rulebook) promoted(of ...slot) *policy.Set {
	keys := make([]policy.Key, 0, len(of))
	for _, s := range of {
		keys = append(keys, s.Key)
	}
	return rb.full.Promoted(keys...).At(rb.at)
}

// slots lists what is held, sorted.
func (rb *rulebook) slots() []slot { return slices.SortedFunc(maps.Keys(rb.held), compareSlots) }

// selects lists the services that each policy has a say on, in one pass over the workloads.
func (rb *rulebook) selects(view *identity.View) map[slot]map[identity.Service]bool {
	out := map[slot]map[identity.Service]bool{}
	note := func(s slot, w *identity.Workload) {
		if out[s] == nil {
			out[s] = map[identity.Service]bool{}
		}
		out[s][w.Service] = true
	}
	for _, w := range view.Workloads {
		for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
			for _, p := range rb.set.About(w, dir) {
				note(slot{Key: p.Key()}, w)
			}
			if rb.trials != nil {
				for _, s := range rb.trials.selecting(w, dir) {
					note(s, w)
				}
			}
		}
	}
	return out
}

// reloadPolicies reads the policies' folder and puts what changed in force. A file that does not
// parse, or names a policy that is held elsewhere, leaves its last good version in force.
func (d *Daemon) reloadPolicies() {
	d.change.Lock()
	defer d.change.Unlock()
	files, errs, err := d.policyFolder.files()
	if err != nil && !d.absent(err, len(d.policyFiles.good)) {
		d.complain(folderPolicies, []error{fmt.Errorf("policyDir: %w; what it held stays in force", err)})
		return
	}
	next, changed := d.policyFiles.read(files, d.signing.parseFile)
	if changed {
		err = d.usePolicyFiles(next)
	}
	if err == nil || !changed {
		d.policyFiles = next
		err = nil
	}
	errs = append(errs, err)
	for _, text := range next.errors() {
		errs = append(errs, errors.New(text))
	}
	d.complain(folderPolicies, slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
}

// usePolicyFiles puts the folder's good files in force beside the API's policies.
func (d *Daemon) usePolicyFiles(files lastGood[[]policy.Policy]) error {
	p := d.newPlan(causeFiles)
	held, err := withFiles(p.held, files, d.policyFiles, d.now())
	if err != nil {
		return fmt.Errorf("policyDir: %w; nothing was changed", err)
	}
	p.held, p.change.Files = held, files.texts()
	if err := p.finish(); err != nil {
		return fmt.Errorf("policyDir: %w; nothing was changed", err)
	}
	_, err = d.enact(d.life, p)
	return err
}

// withFiles gives the API's policies in held and those of the files. A file that names a policy that
// is held already is refused, and marked so in files.
func withFiles(held map[slot]heldPolicy, files, before lastGood[[]policy.Policy], now time.Time) (map[slot]heldPolicy, error) {
	next := map[slot]heldPolicy{}
	for key, h := range held {
		if h.from == sourceAPI {
			next[key] = h
		}
	}
	for _, path := range files.paths() {
		err := addFile(next, held, path, files.good[path].value, now)
		if err == nil {
			continue
		}
		files.refuse(path, before, err)
		if old, known := files.good[path]; known && addFile(next, held, path, old.value, now) != nil {
			delete(files.good, path)
		}
	}
	if len(next) > maxPolicies {
		return nil, fmt.Errorf("%d policies, bound %d", len(next), maxPolicies)
	}
	return next, nil
}

func addFile(next, before map[slot]heldPolicy, path string, list []policy.Policy, now time.Time) error {
	for i := range list {
		if other, taken := next[slotOf(&list[i])]; taken && other.from != path {
			return fmt.Errorf("%s: %s is held by %s already; remove it from one of them", list[i].Source, slotOf(&list[i]), other.from)
		}
	}
	for i := range list {
		h := heldPolicy{list[i], path, now}
		if old, was := before[slotOf(&list[i])]; was && old.from == path && old.Text == h.Text {
			h.applied = old.applied
		}
		next[slotOf(&list[i])] = h
	}
	return nil
}
