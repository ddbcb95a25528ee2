package gossip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// How often nodes that should be members and are not are tried: soon at first, then for ever.
const (
	seekFirst = 500 * time.Millisecond
	seekMost  = 20 * time.Second
)

// seek joins the seeds, and whoever died: memberlist forgets a dead node after half a minute, and both
// sides of a longer partition would never find each other again.
func (g *Cluster) seek(ctx context.Context) {
	wait := seekFirst
	for {
		targets, err := g.missing()
		if err != nil {
			g.log.Warn("seeds", "err", err)
		}
		for _, t := range targets {
			if ctx.Err() != nil {
				return
			}
			if _, err := g.list.Join([]string{t}); err != nil {
				g.log.Debug("not joined", "seed", t, "err", err)
			}
		}
		if len(targets) == 0 {
			wait = seekFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(wait*2, seekMost)
	}
}

// missing lists where to try: every seed while this node is alone or a seed is no member, and the last
// addresses of the dead.
func (g *Cluster) missing() ([]string, error) {
	seeds, err := readSeeds(g.config.Seeds)
	g.mu.Lock()
	defer g.mu.Unlock()
	members := map[string]bool{}
	var out []string
	for name, k := range g.nodes {
		switch {
		case name == g.config.Node, k.status == Alive:
			members[k.node.Address()] = true
		case k.status == Dead:
			out = append(out, k.node.Address())
		}
	}
	for _, s := range seeds {
		if !members[s] {
			out = append(out, s)
		}
	}
	return out, err
}

// readSeeds puts the lines of files in the place of "file:PATH". Errors: a file that cannot be read; the
// other seeds are given.
func readSeeds(list []string) ([]string, error) {
	var out []string
	var failed error
	for _, s := range list {
		path, isFile := strings.CutPrefix(s, "file:")
		if !isFile {
			out = append(out, s)
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			failed = fmt.Errorf("gossip: seeds: %w", err)
			continue
		}
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line != "" {
				out = append(out, line)
			}
		}
	}
	return out, failed
}
