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
	// maxPolicies bounds the policies in force.
	maxPolicies = 20_000
)

// rulebook is the policies in force and where each came from. It never changes: a change makes
// another.
type rulebook struct {
	set  *policy.Set
	held map[policy.Key]heldPolicy
}

type heldPolicy struct {
	policy.Policy
	from    string // sourceAPI, or the file of the watched folder
	applied time.Time
}

// newRulebook makes a rulebook of policies whose keys differ.
func newRulebook(held map[policy.Key]heldPolicy) (*rulebook, error) {
	if len(held) > maxPolicies {
		return nil, fmt.Errorf("%d policies, bound %d", len(held), maxPolicies)
	}
	list := make([]policy.Policy, 0, len(held))
	for _, h := range held {
		list = append(list, h.Policy)
	}
	set, err := policy.NewSet(list...)
	if err != nil {
		return nil, err
	}
	return &rulebook{set: set, held: held}, nil
}

func (rb *rulebook) keys() []policy.Key {
	return slices.SortedFunc(maps.Keys(rb.held), func(a, b policy.Key) int { return strings.Compare(a.String(), b.String()) })
}

// storeKey is a policy's key in the store.
func storeKey(k policy.Key) string { return k.Kind + "/" + k.Namespace + "/" + k.Name }

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
	rules, err := withFiles(d.rules.Load().held, files, d.policyFiles, d.now())
	if err != nil {
		return fmt.Errorf("policyDir: %w; nothing was changed", err)
	}
	if err := d.store.PutFiles(folderPolicies, files.texts()); err != nil {
		return err
	}
	_, err = d.enact(d.life, &plan{rules: rules, modes: d.modes.Load()}, "policyDir")
	return err
}

// withFiles makes the rulebook of the API's policies in held and those of the files. A file that
// names a policy that is held already is refused, and marked so in files.
func withFiles(held map[policy.Key]heldPolicy, files, before lastGood[[]policy.Policy], now time.Time) (*rulebook, error) {
	next := map[policy.Key]heldPolicy{}
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
	return newRulebook(next)
}

func addFile(next, before map[policy.Key]heldPolicy, path string, list []policy.Policy, now time.Time) error {
	for i := range list {
		if other, taken := next[list[i].Key()]; taken && other.from != path {
			return fmt.Errorf("%s: %s is held by %s already; remove it from one of them", list[i].Source, list[i].Key(), other.from)
		}
	}
	for i := range list {
		h := heldPolicy{list[i], path, now}
		if old, was := before[h.Key()]; was && old.from == path && old.Text == h.Text {
			h.applied = old.applied
		}
		next[h.Key()] = h
	}
	return nil
}
