package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

var graphFormats = []string{"text", "dot", "mermaid", "json"}

func (a *app) graph() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Who talks to whom: the service graph as text, dot, mermaid or json",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(graphFormats, format) {
				return usage(cmd, "format %q: want text, dot, mermaid or json", format)
			}
			g, err := a.client().Graph(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case format == "dot":
				return writeDot(a.out, g)
			case format == "mermaid":
				return writeMermaid(a.out, g)
			case format == "json":
				a.output = "json"
			}
			return a.print(g, func() error { return a.writeText(g) })
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text, dot (Graphviz), mermaid or json")
	complete(cmd, "format", graphFormats...)
	return cmd
}

// writeText lists each client once, with what it calls under it.
func (a *app) writeText(g api.Graph) error {
	nodes := map[string]api.GraphNode{}
	for _, n := range g.Nodes {
		nodes[n.Name] = n
	}
	last := ""
	for _, e := range foldDenied(g.Edges) {
		if e.Client != last {
			last = e.Client
			fmt.Fprintln(a.out, a.describe(nodes[e.Client], e.Client))
		}
		line := fmt.Sprintf("  → %s %s", e.Server, e.label())
		if e.VIP != "" {
			line += " through " + e.VIP
		}
		if len(e.Names) > 0 {
			line += " (" + strings.Join(e.Names, ", ") + ")"
		}
		line += fmt.Sprintf("  x%d, last %s ago", e.Count, age(e.Last))
		if e.Denied > 0 {
			line += fmt.Sprintf(", %s %d", a.word("deny"), e.Denied)
		}
		fmt.Fprintln(a.out, line)
	}
	_, err := fmt.Fprintf(a.out, "%s, %s\n", plural(len(g.Nodes), "node", "nodes"), plural(len(g.Edges), "edge", "edges"))
	return err
}

// foldFrom is from how many never allowed ports of one pair on a picture shows them as one: a scan
// of a thousand ports says no more than that.
const foldFrom = 4

// arrow is an edge of a picture; ports above 1 are folded into it.
type arrow struct {
	api.Edge
	ports int
}

func (e arrow) label() string {
	if e.ports > 1 {
		return fmt.Sprintf("%s/%d and %d other ports", e.Protocol, e.Port, e.ports-1)
	}
	return portOf(e.Protocol, e.Port)
}

// foldDenied makes one arrow of all edges of a pair that were only ever denied, where they are
// many. It stands where the first of them stood.
func foldDenied(edges []api.Edge) []arrow {
	type pair struct{ client, server, protocol string }
	many := map[pair]int{}
	for _, e := range edges {
		if e.Count == 0 && e.Denied > 0 {
			many[pair{e.Client, e.Server, e.Protocol}]++
		}
	}
	var out []arrow
	at := map[pair]int{}
	for _, e := range edges {
		p := pair{e.Client, e.Server, e.Protocol}
		if e.Count > 0 || e.Denied == 0 || many[p] < foldFrom {
			out = append(out, arrow{Edge: e, ports: 1})
			continue
		}
		i, seen := at[p]
		if !seen {
			e.VIP = ""
			at[p] = len(out)
			out = append(out, arrow{Edge: e, ports: 1})
			continue
		}
		out[i].ports++
		out[i].Denied += e.Denied
		if e.Last.After(out[i].Last) {
			out[i].Last = e.Last
		}
	}
	return out
}

func (a *app) describe(n api.GraphNode, name string) string {
	if n.Kind != "service" {
		return name
	}
	return fmt.Sprintf("%s (%s, %s)", name, plural(n.Workloads, "workload", "workloads"), a.word(n.Mode))
}

// writeDot writes Graphviz. Edges with denied connections are red.
func writeDot(w io.Writer, g api.Graph) error {
	var b strings.Builder
	b.WriteString("digraph bulkhead {\n  rankdir=LR;\n  node [shape=box];\n")
	for _, n := range g.Nodes {
		shape := ""
		if n.Kind != "service" {
			shape = " [shape=ellipse]"
		}
		fmt.Fprintf(&b, "  %q%s;\n", n.Name, shape)
	}
	for _, e := range foldDenied(g.Edges) {
		color := ""
		if e.Denied > 0 {
			color = " color=red"
		}
		fmt.Fprintf(&b, "  %q -> %q [label=%q%s];\n", e.Client, e.Server, e.label(), color)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// writeMermaid writes a flowchart for Markdown. Mermaid's ids are plain words, so nodes are
// numbered and their names are labels.
func writeMermaid(w io.Writer, g api.Graph) error {
	ids := map[string]string{}
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	node := func(name, kind string) {
		if ids[name] != "" {
			return
		}
		ids[name] = fmt.Sprintf("n%d", len(ids))
		if kind == "service" {
			fmt.Fprintf(&b, "  %s[\"%s\"]\n", ids[name], name)
		} else {
			fmt.Fprintf(&b, "  %s([\"%s\"])\n", ids[name], name)
		}
	}
	for _, n := range g.Nodes {
		node(n.Name, n.Kind)
	}
	for _, e := range foldDenied(g.Edges) {
		node(e.Client, "")
		node(e.Server, "")
		shaft := "-->"
		if e.Denied > 0 {
			shaft = "-.->" // dotted: some of it was denied
		}
		fmt.Fprintf(&b, "  %s %s|%s| %s\n", ids[e.Client], shaft, e.label(), ids[e.Server])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
