package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// Health says in a line each what of the lab runs: agent, daemons, missing namespaces.
func (l *Lab) Health(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var out []string
	var st agentStatus
	if err := l.agent.call(ctx, pathReady, nil, &st); err != nil {
		out = append(out, "agent: "+err.Error())
	} else {
		out = append(out, fmt.Sprintf("agent: pid %d, %d listeners", st.PID, st.Listeners))
		out = append(out, st.Problems...)
	}
	for _, n := range l.Nodes {
		if l.Bulkhead {
			out = append(out, n.health(ctx))
		}
	}
	for _, ns := range l.namespaces() {
		if !mounted(nsPath(ns)) {
			out = append(out, "namespace "+ns+": gone")
		}
	}
	return out
}

func (n *Node) health(ctx context.Context) string {
	c := api.NewClient(n.Socket())
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return fmt.Sprintf("bulkheadd on %s: %v", n.Name, err)
	}
	return fmt.Sprintf("bulkheadd on %s: pid %d, %d workloads, %d policies, %d edges", n.Name, st.PID, st.Workloads, st.Policies, st.Edges)
}
