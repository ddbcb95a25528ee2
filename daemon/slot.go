package daemon

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// slot is a policy's place in the rulebook. A policy in force and a shadow of it have the same key:
// an edit may run as a shadow beside what it is an edit of.
type slot struct {
	policy.Key
	shadow bool
}

func slotOf(p *policy.Policy) slot { return slot{p.Key(), p.Shadow} }

// String gives "Policy shop/cart", "ClusterNetworkPolicy admins", "Policy shop/cart (shadow)".
func (s slot) String() string {
	if s.shadow {
		return s.Key.String() + shadowMark
	}
	return s.Key.String()
}

const (
	shadowMark   = " (shadow)"
	shadowSuffix = "/shadow"
)

// store is the slot's key in the store: "kind/namespace/name", and "/shadow" behind a shadow's. No
// name of Kubernetes has a slash. Cluster-wide policies have no namespace: "kind//name".
func (s slot) store() string {
	key := s.Kind + "/" + s.Namespace + "/" + s.Name
	if s.shadow {
		key += shadowSuffix
	}
	return key
}

// parseSlot reads what store wrote.
func parseSlot(key string) (slot, error) {
	parts := strings.Split(key, "/")
	shadow := len(parts) == 4 && "/"+parts[3] == shadowSuffix
	if len(parts) != 3 && !shadow || parts[0] == "" || parts[2] == "" {
		return slot{}, fmt.Errorf("key %q: want kind/namespace/name", key)
	}
	return slot{policy.Key{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, shadow}, nil
}

// compareSlots orders by namespace, name and kind; what is in force goes before its shadow.
func compareSlots(a, b slot) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), cmp.Compare(rank(a), rank(b)))
}

func rank(s slot) int {
	if s.shadow {
		return 1
	}
	return 0
}

// fits says whether a name that a caller gave means this slot's policy.
func (s slot) fits(n api.PolicyName) bool {
	return s.Name == n.Name && (n.Namespace == "" || s.Namespace == n.Namespace) && (n.Kind == "" || strings.EqualFold(s.Kind, n.Kind))
}

// pick finds the policy that each name means: exactly one key. only narrows the slots down first; none
// is the error of a name that fits nothing.
func (rb *rulebook) pick(names []api.PolicyName, only func(slot) bool, none string) ([]policy.Key, error) {
	var out []policy.Key
	for _, n := range names {
		text := strings.Trim(n.Kind+" "+strings.TrimPrefix(n.Namespace+"/"+n.Name, "/"), " ")
		if n.Name == "" {
			return nil, api.Errorf(api.BadRequest, "policy without a name; want [KIND/][NAMESPACE/]NAME")
		}
		var found []policy.Key
		for _, s := range rb.slots() {
			if s.fits(n) && only(s) && (len(found) == 0 || found[len(found)-1] != s.Key) {
				found = append(found, s.Key)
			}
		}
		switch len(found) {
		case 0:
			return nil, api.Errorf(api.NotFound, "policy %s: %s", text, none)
		case 1:
			out = append(out, found[0])
		default:
			return nil, api.Errorf(api.BadRequest, "policy %s: %s and %s both fit; name kind and namespace", text, slot{Key: found[0]}, slot{Key: found[1]})
		}
	}
	return out, nil
}
