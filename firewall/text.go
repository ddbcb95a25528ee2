package firewall

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// String prints the ruleset as nft does, counters' values left out. The tables of the node come
// after a line that says where they are.
func (rs *Ruleset) String() string {
	var b strings.Builder
	for i, t := range rs.Tables {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "# in the %s's namespace\n", t.Place)
		t.print(&b)
	}
	return b.String()
}

// String prints the table as nft does.
func (t *Table) String() string {
	var b strings.Builder
	t.print(&b)
	return b.String()
}

func (t *Table) print(b *strings.Builder) {
	fmt.Fprintf(b, "table %s %s {\n", t.Family, t.Name)
	blank := false
	sep := func() {
		if blank {
			b.WriteByte('\n')
		}
		blank = true
	}
	for _, name := range t.Counters {
		sep()
		fmt.Fprintf(b, "\tcounter %s {\n\t}\n", name)
	}
	for _, s := range t.Sets {
		sep()
		s.print(b)
	}
	for _, c := range t.Chains {
		sep()
		c.print(b)
	}
	b.WriteString("}\n")
}

func (s *Set) print(b *strings.Builder) {
	fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", s.Name, s.Key)
	if s.Size > 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.Size)
	}
	if f := s.flagNames(); len(f) > 0 {
		fmt.Fprintf(b, "\t\tflags %s\n", strings.Join(f, ","))
	}
	if s.Counted {
		b.WriteString("\t\tcounter\n")
	}
	if s.Timeout > 0 {
		fmt.Fprintf(b, "\t\ttimeout %s\n", spanText(s.Timeout))
	}
	if s.Comment != "" {
		fmt.Fprintf(b, "\t\tcomment %q\n", s.Comment)
	}
	for i, e := range s.Elements {
		switch {
		case i == 0:
			b.WriteString("\t\telements = { ")
		default:
			b.WriteString(",\n\t\t\t     ")
		}
		b.WriteString(s.Key.text(e))
	}
	if len(s.Elements) > 0 {
		b.WriteString(" }\n")
	}
	b.WriteString("\t}\n")
}

func (s *Set) flagNames() []string {
	var f []string
	if s.Interval {
		f = append(f, "interval")
	}
	if s.Dynamic {
		f = append(f, "dynamic")
	}
	if s.Timeout > 0 && len(f) > 0 { // alone, the timeout itself says it
		f = append(f, "timeout")
	}
	return f
}

func (c *Chain) print(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Hook != nil {
		fmt.Fprintf(b, "\t\t%s\n", c.Hook)
	}
	for _, r := range c.Rules {
		b.WriteString("\t\t" + r.Text)
		if r.Comment != "" {
			fmt.Fprintf(b, " comment %q", r.Comment)
		}
		b.WriteByte('\n')
	}
	b.WriteString("\t}\n")
}

// String prints the hook as nft does; on netdev the numbers are ingress and egress.
func (h *Hook) String() string {
	names := map[uint32]string{hookPrerouting: "prerouting", hookInput: "input", hookOutput: "output"}
	dev := ""
	if h.Device != "" {
		names = map[uint32]string{hookIngress: "ingress", hookEgress: "egress"}
		dev = fmt.Sprintf(" device %q", h.Device)
	}
	policy := "accept"
	if h.Drop {
		policy = "drop"
	}
	prio := "filter"
	if h.Priority == beforeNAT {
		prio = strconv.Itoa(int(h.Priority))
	} else if h.Priority != 0 {
		prio = fmt.Sprintf("filter %+d", h.Priority)
	}
	return fmt.Sprintf("type filter hook %s%s priority %s; policy %s;", names[h.Number], dev, prio, policy)
}

// spanText prints a time as nft does: 3m, 1d, 1m30s.
func spanText(d time.Duration) string {
	var b strings.Builder
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.size
		}
	}
	return b.String()
}

func sortElements(e []Element) { slices.SortFunc(e, Element.compare) }
