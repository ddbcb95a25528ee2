package lab

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// seedsPerNode is how many other nodes a daemon is told of; the rest it hears of from them.
const seedsPerNode = 3

// join makes the daemons' part of a cluster: one key for all, in a file of each node's own, since a
// rotation writes it back. Lone nodes have none.
func (s *State) join() error {
	if !s.Joined {
		return nil
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails since Go 1.24
	text := base64.StdEncoding.EncodeToString(key) + "\n"
	var errs []error
	for _, n := range s.Nodes {
		errs = append(errs, os.MkdirAll(n.Dir, 0o755), os.WriteFile(n.keyFile(), []byte(text), 0o600))
	}
	return errors.Join(errs...)
}

func (n *Node) keyFile() string { return filepath.Join(n.Dir, "cluster.keys") }

// gossipAt is where a node's daemon hears the others.
func (s *State) gossipAt(n *Node) netip.AddrPort {
	a, _ := n.lanAddr(!s.Over6)
	return netip.AddrPortFrom(a, gossipPort)
}

// cluster is the section of a node's configuration, with what the caller wants otherwise.
func (s *State) cluster(n *Node, more any) map[string]any {
	at := s.gossipAt(n).String()
	var seeds []string
	i := slices.Index(s.Nodes, n)
	for step := 1; step < len(s.Nodes) && len(seeds) < seedsPerNode; step++ {
		seeds = append(seeds, s.gossipAt(s.Nodes[(i+step)%len(s.Nodes)]).String())
	}
	out := map[string]any{"name": s.Name, "keyFile": n.keyFile(), "bind": at, "advertise": at, "seeds": seeds}
	if blocks := s.ownBlocks(n); len(blocks) > 0 {
		out["nodePodBlocks"] = blocks
	}
	if m, ok := more.(map[string]any); ok {
		maps.Copy(out, m)
	}
	return out
}

// ownBlocks are a node's pod blocks, unless another node has pods in them: manifests may give
// addresses as they like, and then no range is anybody's own.
func (s *State) ownBlocks(n *Node) []netip.Prefix {
	var out []netip.Prefix
	for _, net := range n.Nets {
		for _, block := range []netip.Prefix{net.Block4, net.Block6} {
			if !block.IsValid() {
				continue
			}
			for _, p := range s.Pods {
				if p.Node != n.Name && !p.HostNetwork && slices.ContainsFunc(p.Addrs, block.Contains) {
					return nil
				}
			}
			out = append(out, block)
		}
	}
	return out
}

// toldOf says whether a node's inventory lists a pod. In a cluster nodes tell each other of their pods.
func (s *State) toldOf(n *Node, p *Pod) bool {
	return !s.Joined || p.HostNetwork || p.Node == n.Name
}

// knownEverywhere waits until every daemon knows every pod by its addresses, and its own pods' rules
// are worked out with that.
func (s *State) knownEverywhere(ctx context.Context) error {
	if !s.Joined {
		return nil
	}
	for _, n := range s.Nodes {
		if err := s.knows(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) knows(ctx context.Context, n *Node) error {
	c := api.NewClient(n.Socket())
	defer c.Close()
	for {
		list, err := c.Workloads(ctx)
		missing := ""
		if err == nil {
			missing = s.unknown(list)
		} else {
			missing = err.Error()
		}
		if missing == "" {
			_, err := c.Apply(ctx, api.ApplyRequest{}) // changes nothing; returns when rules are in force
			if err != nil {
				err = fmt.Errorf("node %s: %w", n.Name, err)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s: %s: %w; its log ends:\n%s", n.Name, missing, ctx.Err(), tail(n.log()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// unknown names a pod that a daemon does not know as it is; empty when there is none.
func (s *State) unknown(list []api.Workload) string {
	have := map[string][]string{}
	for _, w := range list {
		have[w.Namespace+"/"+w.Name] = w.Addrs
	}
	for _, p := range s.Pods {
		if p.Detached {
			continue
		}
		for _, a := range p.Addrs {
			if !slices.Contains(have[p.String()], a.String()) {
				return fmt.Sprintf("pod %s on %s is not known by %s", p, p.Node, a)
			}
		}
	}
	return ""
}

// Known waits until every node's daemon knows every pod that is attached, and its rules say so.
func (l *Lab) Known(ctx context.Context) error { return l.knownEverywhere(ctx) }
