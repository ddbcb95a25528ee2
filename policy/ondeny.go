package policy

import (
	"fmt"
	"strings"
)

// OnDeny is how a denial reaches who asked. The zero value leaves it to the daemon's configuration.
type OnDeny uint8

const (
	OnDenyDefault OnDeny = iota
	// Reject answers: TCP with a reset, everything else with an ICMP error that says
	// "administratively prohibited" (RFC 792, RFC 1812 5.2.7.1; RFC 4443 3.1). Applications fail at
	// once.
	Reject
	// Drop answers nothing: applications wait until they give up.
	Drop
)

// The words of spec.onDeny, of the annotation that stands for it in other kinds, and of the
// configuration.
const (
	OnDenyAnnotation = "bulkhead.dev/on-deny"
	wordDrop         = "Drop"
	wordReject       = "Reject"
)

var onDenyWords = []string{wordDrop, wordReject}

func (o OnDeny) String() string { return [...]string{"", wordReject, wordDrop}[o] }

// Verb is the manner as verdicts tell it: "reject" or "drop".
func (o OnDeny) Verb() string { return strings.ToLower(o.String()) }

func (o OnDeny) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads Drop or Reject; nothing leaves it to the default.
func (o *OnDeny) UnmarshalText(b []byte) error {
	switch string(b) {
	case "":
		*o = OnDenyDefault
	case wordDrop:
		*o = Drop
	case wordReject:
		*o = Reject
	default:
		return fmt.Errorf("onDeny %q: want %s%s", shorten(string(b)), list(onDenyWords), didYouMean(string(b), onDenyWords))
	}
	return nil
}

// Or is what is said, else the default.
func (o OnDeny) Or(byDefault OnDeny) OnDeny {
	if o == OnDenyDefault {
		return byDefault
	}
	return o
}

// OnDeny is how a denied connection is told so, where a policy says it: "reject" or "drop". Where the
// client's end denies, nothing reaches the server's.
func (d Decision) OnDeny() string {
	if d.Egress.Verdict == Deny {
		return d.Egress.OnDeny.Verb()
	}
	return d.Ingress.OnDeny.Verb()
}

func (c *converter) onDeny(path, word string) OnDeny {
	var o OnDeny
	if err := o.UnmarshalText([]byte(word)); err != nil {
		c.add(path, "%s", err)
	}
	return o
}

func (c *converter) onDenyAnnotation(annotations map[string]string) OnDeny {
	return c.onDeny("metadata.annotations["+OnDenyAnnotation+"]", annotations[OnDenyAnnotation])
}

// onDeny is how a side's denials are told. A side has one manner, whoever denies: the policies that
// isolate it and those with a denying rule have a say, and where they differ the one that tells less
// holds.
func (l *lineup) onDeny() OnDeny {
	out := OnDenyDefault
	for _, c := range l.isolators {
		out = max(out, c.Spec.OnDeny)
	}
	for _, rules := range [][]*rule{l.admin, l.spaces, l.baseline} {
		for _, r := range rules {
			if r.action == ActionDeny {
				out = max(out, r.policy.Spec.OnDeny)
			}
		}
	}
	return out
}
