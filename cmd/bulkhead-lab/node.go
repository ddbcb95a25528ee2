package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// nodes does to a lab's nodes what befalls nodes.
func nodes(w *which) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Stop, kill, freeze, part or slow down nodes",
		Long: `Do to nodes what befalls nodes. Daemons: stop (SIGTERM), start, kill (SIGKILL), freeze and thaw
(SIGSTOP, SIGCONT); rules stay in force meanwhile. The LAN between nodes: cut and lose (nftables on
its bridge), unplug and plug (the link), bend (a relay that delays, doubles and reorders frames);
heal ends all that.`,
	}
	for _, d := range []struct {
		use, short string
		do         func(context.Context, *lab.Lab, string) error
	}{
		{"stop", "End daemons with SIGTERM; rules stay", func(_ context.Context, l *lab.Lab, n string) error { return l.StopDaemon(n) }},
		{"start", "Start daemons again and wait until they answer", func(ctx context.Context, l *lab.Lab, n string) error { return l.StartDaemon(ctx, n) }},
		{"kill", "End daemons with SIGKILL; rules stay", func(_ context.Context, l *lab.Lab, n string) error { return l.KillDaemon(n) }},
		{"freeze", "Stop daemons where they are (SIGSTOP)", func(_ context.Context, l *lab.Lab, n string) error { return l.FreezeDaemon(n) }},
		{"thaw", "Let frozen daemons go on", func(_ context.Context, l *lab.Lab, n string) error { return l.ThawDaemon(n) }},
		{"unplug", "Pull the nodes' cables", func(_ context.Context, l *lab.Lab, n string) error { return l.Unplug(n) }},
		{"plug", "Put the nodes' cables in again", func(_ context.Context, l *lab.Lab, n string) error { return l.Plug(n) }},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: d.use + " NODE...", Short: d.short, Args: cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				l, err := w.open()
				if err != nil {
					return err
				}
				for _, n := range args {
					if err := d.do(cmd.Context(), l, n); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
	cmd.AddCommand(cut(w), lose(w), bend(w), heal(w))
	return cmd
}

func traffic(gossip bool) lab.Traffic {
	if gossip {
		return lab.Gossip
	}
	return lab.All
}

func cut(w *which) *cobra.Command {
	var from []string
	var gossip bool
	cmd := &cobra.Command{
		Use:     "cut NODE... [--from NODE,...] [--gossip]",
		Short:   "Part nodes from others, until heal",
		Example: "  bulkhead-lab node cut n1 n2            # these two from all the others\n  bulkhead-lab node cut n1 --from n3 --gossip",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := w.open()
			if err != nil {
				return err
			}
			return l.Cut(traffic(gossip), args, from)
		},
	}
	cmd.Flags().StringSliceVar(&from, "from", nil, "the other side (default: all others)")
	cmd.Flags().BoolVar(&gossip, "gossip", false, "only what daemons say to each other; pods' connections pass")
	return cmd
}

func lose(w *which) *cobra.Command {
	var gossip bool
	cmd := &cobra.Command{
		Use:   "lose PERCENT NODE... [--gossip]",
		Short: "Lose so many of the nodes' packets in a hundred; 0 ends it",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var percent int
			if _, err := fmt.Sscanf(strings.TrimSuffix(args[0], "%"), "%d", &percent); err != nil {
				return fmt.Errorf("loss %q: want a percentage from 0 to 99", args[0])
			}
			l, err := w.open()
			if err != nil {
				return err
			}
			return l.Lose(traffic(gossip), percent, args[1:]...)
		},
	}
	cmd.Flags().BoolVar(&gossip, "gossip", false, "only what daemons say to each other")
	return cmd
}

func shapeFlags(cmd *cobra.Command) *lab.Shape {
	s := &lab.Shape{}
	f := cmd.Flags()
	f.DurationVar(&s.Delay, "delay", 0, "how late each frame comes, in each direction")
	f.DurationVar(&s.Jitter, "jitter", 0, "up to how much later; frames overtake each other")
	f.IntVar(&s.Duplicate, "duplicate", 0, "how many frames in a hundred come twice")
	f.IntVar(&s.Lose, "lose", 0, "how many frames in a hundred get lost")
	return s
}

func bend(w *which) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bend NODE...",
		Short:   "Delay, double, reorder and lose the nodes' frames, until heal",
		Example: "  bulkhead-lab node bend n1 n2 --delay 20ms --jitter 30ms --duplicate 5",
		Args:    cobra.MinimumNArgs(1),
	}
	s := shapeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := w.open()
		if err != nil {
			return err
		}
		for _, n := range args {
			if err := l.Bend(cmd.Context(), n, *s); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func heal(w *which) *cobra.Command {
	return &cobra.Command{
		Use:   "heal [NODE...]",
		Short: "End every fault of the LAN at these nodes; without any, all",
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := w.open()
			if err != nil {
				return err
			}
			return l.Heal(args...)
		},
	}
}

// relay is the process behind bend; nobody else needs it.
func relay() *cobra.Command {
	var port string
	cmd := &cobra.Command{Use: "relay", Short: "A node's cable, in user space", Hidden: true, Args: cobra.NoArgs}
	s := shapeFlags(cmd)
	cmd.Flags().StringVar(&port, "port", "", "the node's end on the LAN")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if port == "" {
			return errors.New("relay: want --port")
		}
		return lab.RunRelay(cmd.Context(), port, *s)
	}
	return cmd
}
