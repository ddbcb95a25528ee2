package daemon

import (
	"fmt"

	yaml "go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// OnDeny is how denials are told where no policy says it, by direction. In the file it is one word for
// both, or a mapping of egress and ingress.
type OnDeny struct{ Egress, Ingress policy.OnDeny }

// UnmarshalYAML reads the word or the mapping; what is not said stays as it is.
func (o *OnDeny) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		var both policy.OnDeny
		if err := readOnDeny(n, &both); err != nil {
			return err
		}
		*o = OnDeny{both, both}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("want Drop, Reject, or a mapping of egress and ingress to one of them")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		var err error
		switch key := n.Content[i].Value; key {
		case policy.Egress.String():
			err = readOnDeny(n.Content[i+1], &o.Egress)
		case policy.Ingress.String():
			err = readOnDeny(n.Content[i+1], &o.Ingress)
		default:
			err = fmt.Errorf("unknown key %q; known are egress, ingress", key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readOnDeny(n *yaml.Node, into *policy.OnDeny) error {
	var word string
	if err := n.Decode(&word); err != nil {
		return err
	}
	if word == "" {
		return fmt.Errorf("empty; want Drop or Reject")
	}
	return into.UnmarshalText([]byte(word))
}

func (o OnDeny) of(d policy.Direction) policy.OnDeny {
	if d == policy.Egress {
		return o.Egress
	}
	return o.Ingress
}

// told fills in how the denials of both sides are told.
func (o OnDeny) told(s policy.Sides) policy.Sides {
	s.Egress.OnDeny = s.Egress.OnDeny.Or(o.Egress)
	s.Ingress.OnDeny = s.Ingress.OnDeny.Or(o.Ingress)
	return s
}

// manner is how a denial at one end is told: "reject" or "drop"; empty where it is none.
func (o OnDeny) manner(s policy.SideDecision, d policy.Direction, m policy.Mode) string {
	if sideVerdict(s, m) != policy.Deny {
		return ""
	}
	return s.OnDeny.Or(o.of(d)).Verb()
}
