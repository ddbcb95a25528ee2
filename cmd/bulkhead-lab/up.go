package main

import (
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

func up(w *which) *cobra.Command {
	var o lab.Options
	var resolvers []string
	cmd := &cobra.Command{
		Use:   "up -f FILES",
		Short: "Make a lab from Kubernetes manifests",
		Long: `Make a lab from Kubernetes manifests: Namespace, Node, Pod and Service; NetworkPolicy, Policy and
ClusterNetworkPolicy, which are put in force on every node. Pods keep their podIPs and nodes; those without get some.
Ready when every pod answers on its ports and every policy is in force.`,
		Example: "  bulkhead-lab up -f examples/shop\n  bulkhead-lab up -f cluster.yaml -f policies/ --name test --mode alert",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Files = append(o.Files, args...) // -f *.yaml, expanded by the shell
			if len(o.Files) == 0 {
				return fmt.Errorf("up: want manifests: -f FILES")
			}
			for _, r := range resolvers {
				a, err := netip.ParseAddr(r)
				if err != nil {
					return fmt.Errorf("resolver %q: want an address", r)
				}
				o.Resolvers = append(o.Resolvers, a)
			}
			var err error
			if o.Name, err = w.fresh(); err != nil {
				return err
			}
			o.Dir, o.Progress = w.dir, cmd.ErrOrStderr()
			l, err := lab.Up(cmd.Context(), o)
			if err != nil {
				return err
			}
			return printLab(cmd.OutOrStdout(), l)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.Files, "file", "f", nil, "manifests, or a directory of manifests (repeatable)")
	f.StringVar(&o.Mode, "mode", "", "learn, alert or enforce (default: enforce with policies, learn without)")
	f.StringVar(&o.Bin, "bin", "", "folder of the programs (environment BULKHEAD_BIN; default: where this one is)")
	f.StringArrayVar(&resolvers, "resolver", nil, "address for the pods' resolv.conf (default: Service kube-system/kube-dns)")
	f.BoolVar(&o.AllowDNS, "allow-dns", false, "pods may always ask their resolvers (default: only where policy allows it, as in Kubernetes)")
	f.IntVar(&o.Parallel, "parallel", 0, "pods attached at a time (default 4)")
	f.BoolVar(&o.Alone, "alone", false, "tell each daemon of all pods (default: several nodes are a cluster and tell each other)")
	f.BoolVar(&o.Over6, "over6", false, "the cluster's daemons reach each other over IPv6")
	f.BoolVar(&o.NoBulkhead, "no-bulkhead", false, "bridge alone: neither plugin nor daemon")
	f.BoolVar(&o.NoListen, "no-listen", false, "nobody listens on container ports")
	_ = f.MarkHidden("no-bulkhead") // fails for a flag that is not there
	_ = f.MarkHidden("no-listen")
	return cmd
}

// printLab says what there is and how to use it.
func printLab(out io.Writer, l *lab.Lab) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "lab\t%s\t%s\n", l.Name, l.Dir)
	for _, n := range l.Nodes {
		fmt.Fprintf(t, "node\t%s\t%s\tip netns exec %s\n", n.Name, addrs(n.Addrs), n.NetNS)
	}
	for _, p := range l.Pods {
		fmt.Fprintf(t, "pod\t%s\t%s\ton %s\n", p, addrs(p.Addrs), p.Node)
	}
	for _, v := range l.VIPs {
		fmt.Fprintf(t, "service\t%s\t%s %s\t%d backends\n", v.Service, netip.AddrPortFrom(v.Addr, v.Port), v.Protocol, len(v.Backends))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if l.Bulkhead {
		fmt.Fprintf(out, "\nexport BULKHEAD_SOCKET=%s\n", l.Socket())
	}
	_, err := fmt.Fprintf(out, "export BULKHEAD_LAB=%s\n", l.Name)
	return err
}

func addrs(list []netip.Addr) string {
	s := ""
	for i, a := range list {
		if i > 0 {
			s += ", "
		}
		s += a.String()
	}
	return s
}
