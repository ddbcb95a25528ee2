package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) clusterStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Members, who lags behind whom, how fast changes arrive, keys",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.client().ClusterStatus(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(s, func() error { return a.printCluster(s) })
		},
	}
}

func (a *app) printCluster(s api.ClusterStatus) error {
	states := map[string]int{}
	for _, m := range s.Members {
		states[m.State]++
	}
	var parts []string
	for _, state := range []string{"alive", "dead", "left"} {
		if states[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", states[state], state))
		}
	}
	key := "in the clear"
	if s.Encrypted != "" {
		key = "encrypted with key " + s.Encrypted
	}
	fmt.Fprintf(a.out, "cluster    %s, %s, %s\n", s.Name, strings.Join(parts, ", "), key)
	fmt.Fprintf(a.out, "this node  %s, signs with %s, holds %.8s\n", s.Node, s.Fingerprint, s.Registers)
	if v := s.Convergence; v != nil {
		fmt.Fprintf(a.out, "changes    in force elsewhere after %s (half of them), %s (99 %%), %d answers missed\n", millis(v.P50), millis(v.P99), v.Missed)
	}
	if n := s.Counters; n.Starts > 0 {
		text := fmt.Sprintf("%s, %d before all nodes of their peers knew them", plural(int(n.Starts), "workload", "workloads"), n.Unheard)
		if v := s.StartWait; v != nil {
			text += fmt.Sprintf("; else after %s (half of them), %s (99 %%)", millis(v.P50), millis(v.P99))
		}
		fmt.Fprintf(a.out, "starts     %s\n", text)
	}
	if n := s.Counters; n.Refused+n.Overflow+n.Unsent > 0 {
		fmt.Fprintf(a.out, "messages   %d refused, %d over the bound, %d answers not delivered\n", n.Refused, n.Overflow, n.Unsent)
	}
	for _, text := range s.Refused {
		fmt.Fprintf(a.out, "refused    %s\n", text)
	}
	var rows [][]string
	for _, m := range s.Members {
		rows = append(rows, []string{m.Node, m.State, age(m.Since), m.Address, heardAgo(m.Heard), strconv.Itoa(m.Workloads), lag(&m, s.Node), m.Fingerprint, m.Program})
	}
	return a.table("NODE STATE SINCE ADDRESS HEARD WORKLOADS LAG KEY VERSION", rows)
}

// lag says how far a member is behind what this node knows, and the reverse.
func lag(m *api.ClusterMember, self string) string {
	switch {
	case m.Error != "":
		return m.Error
	case m.Node == self, m.State != "alive":
		return ""
	}
	var parts []string
	if !m.Agrees {
		parts = append(parts, "policies differ")
	}
	if m.Behind > 0 {
		parts = append(parts, fmt.Sprintf("%d behind", m.Behind))
	}
	if m.Ahead > 0 {
		parts = append(parts, fmt.Sprintf("%d ahead", m.Ahead))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func heardAgo(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(t)
}

func millis(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
}
