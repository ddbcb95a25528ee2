package netpol

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/kube"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/suite"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// probe is one question of probes.json as both sides read it.
type probe struct {
	Client   string   `json:"client"`
	Server   string   `json:"server"`
	Protocol string   `json:"protocol"`
	Port     lab.Port `json:"port,omitzero"`
	Expect   string   `json:"expect,omitempty"`
	Because  string   `json:"because,omitempty"`
}

func (p probe) String() string {
	if p.Port == (lab.Port{}) {
		return fmt.Sprintf("%s → %s %s", p.Client, p.Server, p.Protocol)
	}
	return fmt.Sprintf("%s → %s %s/%s", p.Client, p.Server, p.Protocol, p.Port)
}

// verdict of one side: allow, deny, or "error: why there is none".
type verdict string

// evaluator is the side that asks no kernel: what `bulkhead policy verdicts` does.
type evaluator struct{ cluster *suite.Cluster }

func newEvaluator(inventory string) (*evaluator, error) {
	inv, err := kube.ParseManifests("inventory.yaml", []byte(inventory))
	if err != nil {
		return nil, err
	}
	view, err := inv.View()
	if err != nil {
		return nil, err
	}
	return &evaluator{suite.NewCluster(view)}, nil
}

// setOf is what holds now of policies as a file says them.
func setOf(policies string) (*policy.Set, error) {
	list, err := policy.Parse("policies.yaml", []byte(policies))
	if err != nil {
		return nil, err
	}
	set, err := policy.NewSet(list...)
	if err != nil {
		return nil, err
	}
	return set.At(time.Now()), nil
}

// answer gives the verdicts, and the reasons for each.
func (e *evaluator) answer(set *policy.Set, probes []probe) ([]verdict, [][]string, error) {
	text, err := json.Marshal(probes)
	if err != nil {
		return nil, nil, err
	}
	asked, err := suite.ParseProbes("probes.json", text)
	if err != nil {
		return nil, nil, err
	}
	out, why := make([]verdict, len(asked)), make([][]string, len(asked))
	for i := range asked {
		a := e.cluster.Ask(set, &asked[i])
		if a.Err != nil {
			out[i] = verdict("error: " + a.Err.Error())
			continue
		}
		out[i], why[i] = verdict(a.Decision.Verdict.String()), a.Decision.Reasons()
	}
	return out, why, nil
}

// one asks a single question.
func (e *evaluator) one(set *policy.Set, p probe) suite.Answer {
	text, err := json.Marshal([]probe{p})
	if err != nil {
		return suite.Answer{Err: err}
	}
	asked, err := suite.ParseProbes("probes.json", text)
	if err != nil {
		return suite.Answer{Err: err}
	}
	return e.cluster.Ask(set, &asked[0])
}

// backends are the questions that one to a Service's address leads to; false: it is none.
func (e *evaluator) backends(p probe) (out []probe, vip bool) {
	view := e.cluster.View()
	addr, err := netip.ParseAddr(p.Server)
	if err != nil {
		return nil, false
	}
	if _, vip = view.VIPNames[addr]; !vip {
		return nil, false
	}
	protocol, err := identity.ParseProtocol(p.Protocol)
	if err != nil {
		return nil, true
	}
	for _, b := range view.Backends(identity.VIPKey{Addr: addr, Protocol: protocol, Port: p.Port.Number}) {
		for _, a := range b.Workload.Addrs {
			if a.Is4() == addr.Is4() {
				out = append(out, probe{Client: p.Client, Server: a.String(), Protocol: p.Protocol, Port: lab.Port{Number: b.Port}})
			}
		}
	}
	return out, true
}

// kernel is the side that sends packets: a lab whose daemons are given one set of policies after the
// other.
type kernel struct {
	lab     *lab.Lab
	clients []*api.Client
	pods    []int // on each node, in namespaces of their own
}

func newKernel(ctx context.Context, o lab.Options) (*kernel, error) {
	o.Mode, o.Alone = policy.Enforce.String(), true // every daemon is told what the evaluator is told
	l, err := lab.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	k := &kernel{lab: l}
	for _, n := range l.Nodes {
		k.clients = append(k.clients, api.NewClient(n.Socket()))
		pods := 0
		for _, p := range l.Pods {
			if p.Node == n.Name && !p.HostNetwork {
				pods++
			}
		}
		k.pods = append(k.pods, pods)
	}
	return k, nil
}

func (k *kernel) close() error {
	for _, c := range k.clients {
		c.Close()
	}
	return k.lab.Down()
}

// set puts policies in force on every node, in the place of those that are.
func (k *kernel) set(ctx context.Context, policies string) error {
	r := api.ApplyRequest{Prune: true}
	if strings.Contains(policies, "kind:") {
		r.Files = []api.File{{Name: "policies.yaml", Data: policies}}
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, c := range k.clients {
		group.Go(func() error {
			res, err := c.Apply(ctx, r)
			if err == nil && res.Workloads < k.pods[i] {
				err = fmt.Errorf("node %s: %d of %d workloads hold the policies", k.lab.Nodes[i].Name, res.Workloads, k.pods[i])
			}
			return err
		})
	}
	return group.Wait()
}

// describe tells every daemon of another inventory, whose pods, nodes and addresses are the lab's, and
// waits until each knows it: as an API server or a folder would, while policies are in force.
func (k *kernel) describe(ctx context.Context, inventory string) error {
	inv, err := kube.ParseManifests("inventory.json", []byte(inventory))
	if err != nil {
		return err
	}
	for i, n := range k.lab.Nodes {
		file := filepath.Join(n.Dir, "inventory", "lab.json")
		if err := os.WriteFile(file+".new", []byte(inventory), 0o644); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
		for {
			why, err := k.knows(ctx, k.clients[i], inv)
			if err == nil && why == "" {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("node %s: %s%v: %w", n.Name, why, err, ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// knows says in what a daemon's workloads differ from an inventory's; empty: in nothing.
func (k *kernel) knows(ctx context.Context, c *api.Client, inv *kube.Inventory) (string, error) {
	list, err := c.Workloads(ctx)
	if err != nil {
		return "", err
	}
	known := map[string]api.Workload{}
	for _, w := range list {
		known[w.Namespace+"/"+w.Name] = w
	}
	for _, w := range inv.Workloads {
		name := w.Namespace + "/" + w.Name
		have := known[name]
		ports := make([]string, 0, len(w.Ports))
		for _, p := range w.Ports {
			ports = append(ports, fmt.Sprintf("%s=%s/%d", p.Name, p.Protocol, p.Port))
		}
		if !maps.Equal(have.Labels, w.Labels) || !maps.Equal(have.NamespaceLabels, w.NamespaceLabels) || !slices.Equal(have.Ports, ports) {
			return fmt.Sprintf("%s: has %v %v %v, want %v %v %v", name, have.Labels, have.NamespaceLabels, have.Ports, w.Labels, w.NamespaceLabels, ports), nil
		}
	}
	return "", nil
}

// answer sends the probes.
func (k *kernel) answer(ctx context.Context, probes []probe, patient bool) ([]verdict, error) {
	asked := make([]lab.Probe, len(probes))
	for i, p := range probes {
		asked[i] = lab.Probe{Client: p.Client, Server: p.Server, Protocol: p.Protocol, Port: p.Port}
	}
	ask := k.lab.Glance
	if patient {
		ask = k.lab.Probe
	}
	got, err := ask(ctx, asked)
	if err != nil {
		return nil, err
	}
	out := make([]verdict, len(got))
	for i, a := range got {
		out[i] = verdict(a.Verdict)
		if a.Error != "" {
			out[i] = verdict("error: " + a.Error)
		}
	}
	return out, nil
}

// agree says whether two sides say the same. Why there can be no verdict each may say in its words.
func (v verdict) agree(o verdict) bool {
	return v == o || strings.HasPrefix(string(v), "error") && strings.HasPrefix(string(o), "error")
}

// settled gives the kernel's verdicts on probes under the policies that are in force, those that want
// contradicts asked again patiently: what a busy machine lost is no denial.
func (k *kernel) settled(ctx context.Context, probes []probe, want []verdict) ([]verdict, error) {
	got, err := k.answer(ctx, probes, false)
	for try := 0; try < 2 && err == nil; try++ {
		var again []int
		var some []probe
		for i := range got {
			if !got[i].agree(want[i]) {
				again, some = append(again, i), append(some, probes[i])
			}
		}
		if len(some) == 0 {
			break
		}
		var more []verdict
		if more, err = k.answer(ctx, some, true); err == nil {
			for j, i := range again {
				got[i] = more[j]
			}
		}
	}
	return got, err
}
