package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

func (a *app) explain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain CLIENT SERVER PROTOCOL/PORT",
		Short: "May CLIENT connect to SERVER, and which rule says so",
		Long: `May CLIENT connect to SERVER, and which rule says so.

Ends are a service or workload (namespace/name; a bare name is one of the namespace default), node,
dns, or an address. PORT is a number or a port's name; ICMP takes its type (ICMP/8).
Exits with 3 where the packet would be dropped.`,
		Example:           "  bulkhead explain frontend redis-cart TCP/6379\n  bulkhead explain node shop/cart TCP/grpc",
		Args:              exactly(3, "CLIENT SERVER PROTOCOL/PORT"),
		ValidArgsFunction: a.twoEnds,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := parsePort(args[2])
			if err != nil {
				return usage(cmd, "%v", err)
			}
			req.Client, req.Server = end(args[0]), end(args[1])
			x, err := a.client().Explain(cmd.Context(), req)
			if err != nil {
				return err
			}
			if err := a.print(x, func() error { return a.printExplanation(x, args[2]) }); err != nil {
				return err
			}
			if x.Verdict == "deny" {
				return &codeError{code: exitRefused}
			}
			return nil
		},
	}
}

// end leaves node, dns and addresses as they are and qualifies bare names.
func end(s string) string {
	if s == "node" || s == "dns" || s == "world" || strings.ContainsAny(s, ".:") && !strings.ContainsRune(s, '/') {
		return s
	}
	return qualified(s)
}

// parsePort reads TCP/80, UDP/dns or ICMP/8.
func parsePort(s string) (api.ExplainRequest, error) {
	protocol, port, found := strings.Cut(s, "/")
	if !found || port == "" {
		return api.ExplainRequest{}, fmt.Errorf("port %q: want PROTOCOL/PORT, for example TCP/80", s)
	}
	p, err := identity.ParseProtocol(protocol)
	if err != nil {
		return api.ExplainRequest{}, fmt.Errorf("port %q: %w", s, err)
	}
	req := api.ExplainRequest{Protocol: p.String()}
	n, err := strconv.Atoi(port)
	switch {
	case err != nil && p.HasPorts():
		req.PortName = port
	case err != nil, n > 65535, n < 0, n == 0 && p.HasPorts(), n > 255 && p.IsICMP():
		return api.ExplainRequest{}, fmt.Errorf("port %q: %q is no port of %s", s, port, p)
	default:
		req.Port = uint16(n)
	}
	return req, nil
}

func (a *app) printExplanation(x api.Explanation, port string) error {
	fmt.Fprintf(a.out, "%s → %s %s: %s%s\n", x.Client, x.Server, port, a.word(x.Verdict), mannerText(x.Verdict, x.OnDeny))
	if x.Policy != x.Verdict {
		fmt.Fprintf(a.out, "policy says %s; the modes of the ends make it %s\n", a.word(x.Policy), a.word(x.Verdict))
	}
	a.printSide("egress", x.Egress)
	a.printSide("ingress", x.Ingress)
	switch s := x.Seen; {
	case x.Egress.Mode+x.Ingress.Mode == "": // asked of files, which saw nothing
	case s == nil:
		fmt.Fprintf(a.out, "seen     never\n")
	default:
		fmt.Fprintf(a.out, "seen     x%d, last %s ago, denied %d\n", s.Count, age(s.Last), s.Denied)
	}
	for _, n := range x.Notes {
		fmt.Fprintf(a.out, "note     %s\n", n)
	}
	return nil
}

// mannerText says how a denial is told.
func mannerText(verdict, onDeny string) string {
	switch {
	case verdict != "deny" || onDeny == "":
		return ""
	case onDeny == "reject":
		return ", rejected"
	}
	return ", dropped"
}

func (a *app) printSide(name string, s api.ExplainSide) {
	fmt.Fprintf(a.out, "%-7s  %s%s: %s", name, a.word(s.Verdict), mannerText(s.Verdict, s.OnDeny), s.Reason)
	var about []string
	if s.Workload != "" {
		about = append(about, s.Workload)
	}
	if s.Mode != "" {
		about = append(about, "mode "+a.word(s.Mode))
	}
	if s.Rule != "" {
		about = append(about, "rule "+s.Rule)
	}
	if len(s.Policies) > 0 {
		about = append(about, "selected by "+strings.Join(s.Policies, ", "))
	}
	if len(about) > 0 {
		fmt.Fprintf(a.out, " (%s)", strings.Join(about, "; "))
	}
	fmt.Fprintln(a.out)
	for _, r := range s.Rules {
		at := ""
		if r.Source != "" {
			at = " (" + r.Source + ")"
		}
		fmt.Fprintf(a.out, "         %-7s  %s%s %s\n", r.Match, r.Rule, at, r.Why)
	}
	if f := s.Fix; f != nil {
		fmt.Fprintf(a.out, "         to allow it: %s\n", f.Text)
		for line := range strings.Lines(f.YAML) {
			fmt.Fprintf(a.out, "           %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
}
