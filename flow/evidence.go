package flow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// fewNames is how many workloads or virtual addresses a comment names.
const fewNames = 3

// evidence is a comment line for each edge of a rule. It changes only when the evidence is of another
// class: a new order of magnitude, an earlier first sight, another of the first workloads. So
// generating again after more of the same traffic gives the same text.
func (s *suggester) evidence(svc identity.Service, edges []*Edge, g peerGroup, dir policy.Direction) []string {
	var out []string
	if g.wide {
		return append(out, "  "+s.line(svc, mergeAll(edges), PortName(edges[0].Protocol, edges[0].Port)))
	}
	for i, e := range edges {
		if i == fewLines {
			out = append(out, fmt.Sprintf("  and %s more like these", magnitude(uint64(len(edges)-i))))
			break
		}
		what := PortName(e.Protocol, e.Port)
		if g.world {
			what = peerEnd(e, dir).Addr.String() + namesText(e.Names) + " " + what
		}
		out = append(out, "  "+s.line(svc, e, what))
	}
	return out
}

// mergeAll sums edges of many world addresses for one line.
func mergeAll(edges []*Edge) *Edge {
	sum := &Edge{Key: edges[0].Key.Wide()}
	for _, e := range edges {
		sum.merge(e, Limits{}.withDefaults())
	}
	return sum
}

func (s *suggester) line(svc identity.Service, e *Edge, what string) string {
	if names := s.vipNames(svc, e.VIPs); names != "" {
		what += " through " + names
	}
	text := fmt.Sprintf("%s: first seen %s, %s times", what, e.First.UTC().Format("2006-01-02 15:04 UTC"), magnitude(e.Count()))
	if e.Count() == 1 {
		text = strings.TrimSuffix(text, "1 times") + "once"
	}
	if names := memberNames(svc, e.Clients); names != "" {
		text += ", by " + names
	}
	if reason := s.reviews[e.Key]; reason != "" {
		text += "; REVIEW: " + reason
	}
	return clean(text)
}

// magnitude rounds down to 1, 2 or a power of ten, with a plus where that hides something:
// "1", "2+", "10+", "100+".
func magnitude(n uint64) string {
	switch {
	case n < 2:
		return fmt.Sprint(n)
	case n < 10:
		return "2+"
	}
	p := uint64(10)
	for n/p >= 10 {
		p *= 10
	}
	return fmt.Sprintf("%d+", p)
}

// memberNames leaves the namespace out where it is the policy's own.
func memberNames(svc identity.Service, l Earliest[Member]) string {
	var names []string
	for _, it := range l.Items {
		names = append(names, strings.TrimPrefix(it.What.String(), svc.Namespace+"/"))
	}
	if len(names) > fewNames || l.More {
		return strings.Join(names[:min(len(names), fewNames)], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

// vipNames gives the virtual addresses by Service name and port: "mail:5000".
func (s *suggester) vipNames(svc identity.Service, l Earliest[Dialled]) string {
	var names []string
	for _, it := range l.Items {
		n, name := it.What.String(), it.What.Name
		if name == "" {
			name = s.view.VIPNames[it.What.Key.Addr]
		}
		if name != "" {
			n = fmt.Sprintf("%s:%d", strings.TrimPrefix(name, svc.Namespace+"/"), it.What.Key.Port)
		}
		names = append(names, n)
	}
	slices.Sort(names)
	return list(slices.Compact(names), fewNames)
}

// namesText gives the DNS names of an address in brackets, or nothing.
func namesText(l Earliest[DNSName]) string {
	var names []string
	for _, it := range l.Items {
		names = append(names, string(it.What))
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + list(names, fewNames) + ")"
}

// list joins a few names and says that there are more.
func list(names []string, few int) string {
	if len(names) > few {
		return strings.Join(names[:few], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

func portTexts(edges []*Edge) []string {
	var out []string
	for _, e := range edges {
		out = append(out, PortName(e.Protocol, e.Port))
	}
	return out
}

// leftOut notes edges that no rule is made for because they were refused.
func (s *suggester) leftOut(edges []*Edge) []string {
	var out []string
	for i, e := range edges {
		if i == fewLines {
			return append(out, fmt.Sprintf("Left out: %s more like these.", magnitude(uint64(len(edges)-i))))
		}
		why := "was denied"
		if e.WouldDeny() > 0 {
			why = "would be denied, and was let through by mode alert"
		}
		text := fmt.Sprintf("Left out: %s, %s", e.Key, why)
		out = append(out, clean(text+"."))
	}
	return out
}
