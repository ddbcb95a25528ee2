package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

func execute(w *which) *cobra.Command {
	as := string(lab.User)
	cmd := &cobra.Command{
		Use:   "exec POD [--as user|raw|admin] -- CMD",
		Short: "Run a program in a pod with few capabilities",
		Long: `Run a program in a pod with few capabilities: user has none (uid 65534), raw is root with
CAP_NET_RAW, admin is root with CAP_NET_RAW and CAP_NET_ADMIN. POD is namespace/name, a name that
only one pod has, a node, or "outside". The exit code is the program's.`,
		Example: "  bulkhead-lab exec shop/web-1 -- wget -qO- http://10.96.0.7/\n  bulkhead-lab exec shop/web-1 --as raw -- tcpdump -ni eth0",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return errors.New("exec: want a pod and a command: exec POD -- CMD")
			}
			l, err := w.open()
			if err != nil {
				return err
			}
			return l.Become(args[0], lab.As(as), args[1:])
		},
	}
	cmd.Flags().StringVar(&as, "as", as, "user, raw or admin")
	return cmd
}
