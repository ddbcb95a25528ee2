package daemon

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// sourceAPI is the source of policies that did not come from the watched folder.
	sourceAPI = "api"
	// maxPolicies bounds the policies in force and the shadows together.
	maxPolicies = 20_000
)

// rulebook is the policies in force and the shadows, and where each came from. It never changes: a
// change makes another.
type rulebook struct {
	set    *policy.Set // what holds
	trials *trials     // nil: no shadows
	held   map[slot]heldPolicy
}

type heldPolicy struct {
	policy.Policy
	from    string // sourceAPI, or the file of the watched folder
	applied time.Time
}

// same says that two policies of one slot are one: the text and who holds it.
func (h heldPolicy) same(o heldPolicy) bool { return h.from == o.from && sameText(h.Text, o.Text) }

func sameText(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }

// newRulebook makes a rulebook of policies whose slots differ.
func newRulebook(held map[slot]heldPolicy) (*rulebook, error) {
	if len(held) > maxPolicies {
		return nil, fmt.Errorf("%d policies, bound %d; nothing was changed", len(held), maxPolicies)
	}
	rb := &rulebook{held: held}
	var err error
	if rb.set, err = rb.promoted(func(slot) bool { return false }); err != nil {
		return nil, err
	}
	rb.trials, err = newTrials(rb)
	return rb, err
}

// promoted is the policies in force, with some shadows in the place of what is in force under the same
// key.
func (rb *rulebook) promoted(which func(slot) bool) (*policy.Set, error) {
	var list []policy.Policy
	for s, h := range rb.held {
		if _, shadowed := rb.held[slot{s.Key, true}]; s.shadow && which(s) || !s.shadow && !(shadowed && which(slot{s.Key, true})) {
			h.Policy.Shadow = false
			list = append(list, h.Policy)
		}
	}
	return policy.NewSet(list...)
}

// slots lists what is held, sorted.
func (rb *rulebook) slots() []slot { return slices.SortedFunc(maps.Keys(rb.held), compareSlots) }

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
	next, changed := d.policyFiles.read(files, policy.Parse)
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
