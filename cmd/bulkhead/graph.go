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
	for _, e := range g.Edges {
		if e.Client != last {
			last = e.Client
			fmt.Fprintln(a.out, a.describe(nodes[e.Client], e.Client))
		}
		line := fmt.Sprintf("  → %s %s", e.Server, portOf(e.Protocol, e.Port))
		if e.VIP != "" {
			line += " through " + e.VIP
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
	for _, e := range g.Edges {
		color := ""
		if e.Denied > 0 {
			color = " color=red"
		}
		fmt.Fprintf(&b, "  %q -> %q [label=%q%s];\n", e.Client, e.Server, portOf(e.Protocol, e.Port), color)
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
	for _, e := range g.Edges {
		node(e.Client, "")
		node(e.Server, "")
		arrow := "-->"
		if e.Denied > 0 {
			arrow = "-.->" // dotted: some of it was denied
		}
		fmt.Fprintf(&b, "  %s %s|%s| %s\n", ids[e.Client], arrow, portOf(e.Protocol, e.Port), ids[e.Server])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
