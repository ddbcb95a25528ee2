package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/explain"
	"github.com/bulkhead-firewall/bulkhead/policy/suite"
)

func (a *app) policyExplain() *cobra.Command {
	var paths []string
	cmd := &cobra.Command{
		Use:   "explain CLIENT SERVER PROTOCOL/PORT -f FILE",
		Short: "Explain a verdict from files, without a daemon: rules that match or nearly do, and what would allow it",
		Long: `Explain a verdict from files, without a daemon: every rule that matches or nearly does, with what is
missing, and the one change that would allow what is denied, as YAML.

-f names policies and the inventory (see "bulkhead policy verdicts"). Ends are named as in
"bulkhead policy test"; the first workload of a service stands for it. "bulkhead explain" asks the same
of the daemon, which knows modes and what was seen, too. Exits with 3 where the verdict is deny.`,
		Example: "  bulkhead policy explain shop/web shop/cart TCP/8080 -f policies/ -f cluster.yaml",
		Args:    exactly(3, "CLIENT SERVER PROTOCOL/PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			port, err := suite.ParsePort(args[2])
			if err != nil {
				return usage(cmd, "%v", err)
			}
			off, err := a.readOffline(paths)
			if err != nil {
				return err
			}
			x, err := explainOffline(off, end(args[0]), end(args[1]), port)
			if err != nil {
				return badInput(err)
			}
			if err := a.print(x, func() error { return a.printExplanation(x, args[2]) }); err != nil {
				return err
			}
			if x.Verdict == policy.Deny.String() {
				return &codeError{code: exitRefused}
			}
			return nil
		},
	}
	filesFlag(cmd, &paths)
	return cmd
}

func explainOffline(off *offline, client, server string, port suite.Port) (api.Explanation, error) {
	var x api.Explanation
	c := off.cluster
	from, to, err := c.Ends(client, server)
	if err != nil {
		return x, err
	}
	for _, e := range []struct {
		name string
		list []suite.Member
	}{{client, from}, {server, to}} {
		if len(e.list) > 1 {
			x.Notes = append(x.Notes, fmt.Sprintf("%s is %d workloads; %s stands for them", e.name, len(e.list), e.list[0]))
		}
	}
	// A service's workload talks to another one of it.
	if client == server && len(to) > 1 {
		to = to[1:]
	}
	q, err := c.Connection(from[0], to[0], port)
	if err != nil {
		return x, fmt.Errorf("%s → %s %s: %w", client, server, port, err)
	}
	if port.Name != "" {
		x.Notes = append(x.Notes, fmt.Sprintf("port %q of %s is %s", port.Name, server, portOf(q.Protocol.String(), q.Port)))
	}
	set := off.current()
	why := explain.Explain(c.View(), set, c.Evaluate, q)
	d := why.Decision
	x.Client, x.Server = client, server
	x.Verdict, x.Policy = d.Verdict.String(), d.Verdict.String()
	x.OnDeny = d.OnDeny()
	x.Egress, x.Ingress = explainedSide(d.Egress, why.Egress, q.Client), explainedSide(d.Ingress, why.Ingress, q.Server)
	if q.Server.Kind == identity.VIP {
		x.Notes = append(x.Notes, behindText(c.View(), q))
	}
	return x, nil
}

// behindText names the workloads behind a Service's port.
func behindText(v *identity.View, q policy.Connection) string {
	var names []string
	for _, b := range v.Backends(identity.VIPKey{Addr: q.Server.Addr, Protocol: q.Protocol, Port: q.Port}) {
		names = append(names, fmt.Sprintf("%s/%s %s", b.Workload.Namespace, b.Workload.Name, portOf(q.Protocol.String(), b.Port)))
	}
	if len(names) == 0 {
		return fmt.Sprintf("service %s has no known workload behind %s", q.Server.Network, portOf(q.Protocol.String(), q.Port))
	}
	return fmt.Sprintf("behind service %s: %s", q.Server.Network, strings.Join(names, ", "))
}

func explainedSide(s policy.SideDecision, why explain.Side, p identity.Peer) api.ExplainSide {
	out := api.ExplainSide{Isolated: s.Isolated, Verdict: s.Verdict.String(), Rule: s.Rule, Reason: s.Reason, Policies: s.Policies, OnDeny: s.OnDeny.Verb()}
	if p.Workload != nil {
		out.Workload = p.Workload.Namespace + "/" + p.Workload.Name
	}
	for _, r := range why.Rules {
		out.Rules = append(out.Rules, api.ExplainRule(r))
	}
	if why.Fix != nil {
		fix := api.ExplainFix(*why.Fix)
		out.Fix = &fix
	}
	return out
}
