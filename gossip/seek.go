package gossip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// How often nodes that should be members and are not are tried: soon at first, then for ever.
const (
	seekFirst = 500 * time.Millisecond
	seekMost  = 20 * time.Second
	// seekAtOnce is how many of them are tried in one round: one that answers brings the others.
	seekAtOnce = 8
	// maxSeeds bounds the addresses that one name or file stands for.
	maxSeeds = 4096
	// seekWait bounds the resolving of names.
	seekWait = 5 * time.Second
)

// seek joins the seeds, and whoever died: memberlist forgets a dead node after half a minute, and both
// sides of a longer partition would never find each other again. Names are resolved anew in each round: a
// headless service has other addresses an hour later.
func (g *Cluster) seek(ctx context.Context) {
	wait := seekFirst
	for {
		targets, err := g.missing(ctx)
		if err != nil && ctx.Err() == nil {
			g.log.Warn("seeds", "err", err)
		}
		for _, t := range targets {
			if ctx.Err() != nil {
				return
			}
			if _, err := g.list.Join([]string{t.String()}); err != nil {
				g.log.Debug("not joined", "seed", t, "err", err)
			}
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-g.kick:
			wait = seekFirst // somebody died just now: it may be a cut that ends soon
		case <-timer.C:
			wait = min(wait*2, seekMost)
		}
		timer.Stop()
	}
}

// missing lists some of those to try: addresses of seeds that are no members, and the last ones of the
// dead. Errors: seeds that say nothing; the others are given.
func (g *Cluster) missing(ctx context.Context) ([]netip.AddrPort, error) {
	seeds, err := resolveSeeds(ctx, g.config.Seeds, g.config.Bind.Port())
	g.mu.Lock()
	defer g.mu.Unlock()
	members := map[netip.AddrPort]bool{}
	var out []netip.AddrPort
	for name, k := range g.nodes {
		addr, ok := netip.AddrFromSlice(k.node.Addr)
		at := netip.AddrPortFrom(addr.Unmap(), k.node.Port)
		switch {
		case !ok:
		case name == g.config.Node, k.status == Alive:
			members[at] = true
		case k.status == Dead:
			out = append(out, at)
		}
	}
	for _, s := range seeds {
		if !members[s] {
			out = append(out, s)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), seekAtOnce)], err
}

// resolveSeeds gives the addresses that seeds stand for. Errors: a file that cannot be read, a name that
// has no address; the others are given.
func resolveSeeds(ctx context.Context, list []string, port uint16) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, seekWait)
	defer cancel()
	names, failed := readSeeds(list)
	var out []netip.AddrPort
	for _, name := range names {
		host, at, err := splitSeed(name, port)
		if err != nil {
			failed = err
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil {
			out = append(out, netip.AddrPortFrom(a.Unmap(), at))
			continue
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			failed = fmt.Errorf("gossip: seed %q: %w", name, err)
		}
		for _, a := range addrs {
			out = append(out, netip.AddrPortFrom(a.Unmap(), at))
		}
	}
	return out[:min(len(out), maxSeeds)], failed
}

// splitSeed reads "host", "host:port", an IPv6 address, or one in brackets with a port.
func splitSeed(seed string, port uint16) (string, uint16, error) {
	if _, err := netip.ParseAddr(seed); err == nil {
		return seed, port, nil
	}
	host, text, err := net.SplitHostPort(seed)
	if err != nil {
		host, text = strings.Trim(seed, "[]"), strconv.Itoa(int(port))
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || host == "" || strings.ContainsAny(host, " /\t") {
		return "", 0, fmt.Errorf("gossip: seed %q: want a host, host:port or file:PATH", seed)
	}
	return host, uint16(n), nil
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
			if line = strings.TrimSpace(line); line != "" && len(out) < maxSeeds {
				out = append(out, line)
			}
		}
	}
	return out, failed
}
