package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// benchChanges measures what a ruleset and a change of it cost, guard included, and what they hold in the
// kernel: a new namespace with 10,000 pairs, one peer more or less, a restart with nothing changed, and
// 100,000 pairs.
func benchChanges(ctx context.Context, o options) (err error) {
	l, err := lab.Up(ctx, lab.Options{Manifests: manifests(1), NoBulkhead: true, NoListen: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	pod, err := l.Pod(podName("client", 0))
	if err != nil {
		return err
	}
	e := end{node: l.Nodes[0].Path(), path: pod.Path(), peer: netip.MustParseAddr("198.51.100.2"), router: firstOf(pod.Addrs[0])}
	if e.ifc, err = eth0(e.node, pod); err != nil {
		return err
	}
	fmt.Println("\n| change, guard included | median | 99th percentile | CPU, median |")
	rule(4)
	const many = 10_000
	fresh := took{}
	for range 10 {
		ns, err := open(e)
		if err != nil {
			return err
		}
		err = fresh.time(func() error { _, err := ns.Apply(firewall.Compile(oursSpec(e, many, true))); return err })
		if err = errors.Join(err, ns.Remove()); err != nil {
			return err
		}
	}
	fresh.print("10,000 pairs into a new namespace")

	ns, err := open(e)
	if err != nil {
		return err
	}
	specs := []firewall.Spec{oursSpec(e, many, true), oursSpec(e, many, true)}
	out := specs[1].Sides.Egress.Entries
	specs[1].Sides.Egress.Entries = slices.Delete(slices.Clone(out), many/3, many/3+1)
	one, compile := took{}, took{}
	for i := range 200 {
		var rs *firewall.Ruleset
		if err := compile.time(func() error { rs = firewall.Compile(specs[i%2]); return nil }); err != nil {
			return err
		}
		if err := one.time(func() error { _, err := ns.Apply(rs); return err }); err != nil {
			return err
		}
	}
	compile.print("one peer of 10,000: ruleset worked out")
	one.print("one peer of 10,000: difference found and put in force")
	if err := ns.Close(); err != nil {
		return err
	}
	restart := took{}
	for range 20 {
		written := 0
		err := restart.time(func() error {
			ns, err := open(e)
			if err != nil {
				return err
			}
			written, err = ns.Apply(firewall.Compile(specs[1]))
			return errors.Join(err, ns.Close())
		})
		if err != nil {
			return err
		}
		if written != 0 {
			return fmt.Errorf("restart with nothing changed wrote %d changes", written)
		}
	}
	restart.print("restart of 10,000 pairs, nothing changed, nothing written")
	if ns, err = open(e); err != nil {
		return err
	}
	if err := ns.Remove(); err != nil {
		return err
	}
	return kernelMemory(e)
}

func open(e end) (*firewall.Namespace, error) {
	return firewall.Open(firewall.Config{NetNS: e.path, Node: e.node, Interfaces: []firewall.Interface{e.ifc}})
}

// kernelMemory tells what a pair takes in the kernel: what is not given back of its slabs and pages.
func kernelMemory(e end) error {
	const pairs = 100_000
	var held []float64
	for range 5 {
		ns, err := open(e)
		if err != nil {
			return err
		}
		before, err := kernelHeld()
		if err != nil {
			return errors.Join(err, ns.Remove())
		}
		spec := oursSpec(e, pairs, true)
		spec.Sides.Ingress.Entries = nil
		_, err = ns.Apply(firewall.Compile(spec))
		if err == nil {
			var after float64
			after, err = kernelHeld()
			held = append(held, (after-before)/pairs)
		}
		if err = errors.Join(err, ns.Remove()); err != nil {
			return err
		}
		time.Sleep(time.Second) // freed after a grace period
	}
	fmt.Printf("\nKernel memory of a pair, each with a peer of its own, guard included: %.0f bytes (median of %d)\n", median(held), len(held))
	return nil
}

// kernelHeld is the kernel's memory that cannot be reclaimed, in bytes.
func kernelHeld() (float64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, l := range strings.Split(string(data), "\n") {
		var kb float64
		for _, name := range []string{"SUnreclaim:", "VmallocUsed:"} {
			if rest, ok := strings.CutPrefix(l, name); ok {
				if _, err := fmt.Sscan(rest, &kb); err != nil {
					return 0, fmt.Errorf("/proc/meminfo: %w", err)
				}
				sum += kb * 1024
			}
		}
	}
	return sum, nil
}

// took collects wall and CPU times in ms.
type took struct{ wall, cpu []float64 }

func (t *took) time(do func() error) error {
	before, err := cpu()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	wall := time.Since(start)
	after, err := cpu()
	t.wall = append(t.wall, wall.Seconds()*1000)
	t.cpu = append(t.cpu, (after-before).Seconds()*1000)
	return err
}

func (t *took) print(what string) {
	s := slices.Clone(t.wall)
	slices.Sort(s)
	row([]string{what, fmt.Sprintf("%.2f ms", quantile(s, 0.5)), fmt.Sprintf("%.2f ms", quantile(s, 0.99)), fmt.Sprintf("%.2f ms", median(t.cpu))})
}
