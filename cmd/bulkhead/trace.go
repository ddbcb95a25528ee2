package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) trace() *cobra.Command {
	return &cobra.Command{
		Use:   "trace CLIENT SERVER PROTOCOL/PORT",
		Short: "Send one packet from CLIENT to SERVER, and tell where it passed and where it died",
		Long: `Send one packet from CLIENT to SERVER, and tell where it passed and where it died.

explain predicts, trace proves: a packet that opens a connection leaves the client's namespace, and
the kernel tells which rule of which place let it through or dropped it, beside what explain
predicts. CLIENT is a workload of the daemon's node; where SERVER is not, only the client's places
are shown. PROTOCOL is TCP, UDP, or ICMP (an echo request: ICMP/8, ICMPv6/128). A TCP connection
that comes about is reset at once. The packet teaches nothing and raises no alert.
Exits with 3 where the packet was dropped, with 1 where the kernel does otherwise than explain
predicts.`,
		Example:           "  bulkhead trace shop/web-1 shop/db-0 TCP/5432\n  bulkhead trace shop/web-1 8.8.8.8 UDP/53",
		Args:              exactly(3, "CLIENT SERVER PROTOCOL/PORT"),
		ValidArgsFunction: a.twoEnds,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := parsePort(args[2])
			if err != nil {
				return usage(cmd, "%v", err)
			}
			req.Client, req.Server = end(args[0]), end(args[1])
			t, err := a.client().Trace(cmd.Context(), req)
			if err != nil {
				return err
			}
			if err := a.print(t, func() error { return a.printTrace(t) }); err != nil {
				return err
			}
			switch {
			case !t.Agrees:
				return fmt.Errorf("THE KERNEL DOES OTHERWISE THAN EXPLAIN PREDICTS: %s", strings.Join(surprises(t), "; "))
			case t.Outcome == api.FateDrop:
				return &codeError{code: exitRefused}
			}
			return nil
		},
	}
}

// surprises are the places that did not do what was predicted.
func surprises(t api.Trace) []string {
	var out []string
	for _, s := range t.Steps {
		if did := fateOf(s); s.Expected != "" && did != s.Expected {
			out = append(out, fmt.Sprintf("%s: %s, predicted %s", s.Place, did, s.Expected))
		}
	}
	return out
}

// fateOf is a step's fate in the words of predictions.
func fateOf(s api.TraceStep) string {
	if s.Alert {
		return "alert"
	}
	return s.Fate
}

func (a *app) printTrace(t api.Trace) error {
	fmt.Fprintf(a.out, "%s (%s) → %s (%s) %s: %s\n", t.Client, t.ClientIP, t.Server, t.ServerIP, portOf(t.Protocol, t.Port), t.Outcome)
	var rows [][]string
	for _, s := range t.Steps {
		fate := fateOf(s)
		if s.Expected != "" && fate != s.Expected {
			fate += " (!)"
		}
		if s.Rejected {
			fate += ", rejected"
		}
		rows = append(rows, []string{s.Place, fate, s.Expected, ruleOf(s)})
	}
	if err := a.table("PLACE GOT PREDICTED RULE", rows); err != nil {
		return err
	}
	for _, s := range t.Steps {
		if s.Policy != "" {
			fmt.Fprintf(a.out, "predicted at the %s: %s\n", s.Place, s.Policy)
		}
	}
	for _, n := range t.Notes {
		fmt.Fprintf(a.out, "note: %s\n", n)
	}
	return nil
}

// ruleOf is the rule that decided, or that none looked.
func ruleOf(s api.TraceStep) string {
	switch {
	case s.Table == "" && s.Fate == api.FatePass:
		return "no rule looks here"
	case s.Table == "":
		return ""
	case s.Rule == "" && s.Table == "inet bulkhead":
		return fmt.Sprintf("%s: policy of the chain", s.Chain)
	case s.Rule == "":
		return fmt.Sprintf("table %s, chain %s: none of ours", s.Table, s.Chain)
	}
	text := s.Chain + ": " + s.Rule
	if s.Comment != "" {
		text += fmt.Sprintf(" (%s)", s.Comment)
	}
	return text
}
