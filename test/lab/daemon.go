package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/kube"
)

// configure writes what a node's daemon reads: its configuration, the inventory with every address
// filled in, the policies.
func (s *State) configure(n *Node, inv *kube.Inventory, more map[string]any) error {
	for _, dir := range []string{"inventory", "policies", "state"} {
		if err := os.MkdirAll(filepath.Join(n.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	config := map[string]any{
		"socket": n.Socket(), "node": n.Name,
		"stateDir": filepath.Join(n.Dir, "state"), "policyDir": n.policyDir(), "inventoryDir": filepath.Join(n.Dir, "inventory"),
		"holder":   n.holder(),
		"alertLog": filepath.Join(n.Dir, "alerts.jsonl"), "defaultMode": s.Mode, "allowDNS": s.AllowDNS,
	}
	if len(s.Resolvers) > 0 {
		config["resolvers"] = s.Resolvers
	}
	maps.Copy(config, more)
	if s.Joined {
		config["cluster"] = s.cluster(n, more["cluster"])
	}
	inventory, err := s.inventory(n, inv)
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	errs := []error{
		os.WriteFile(n.config(), b, 0o644),
		os.WriteFile(filepath.Join(n.Dir, "inventory", "lab.json"), inventory, 0o644),
	}
	for i, d := range inv.Policies {
		// Blank lines in front keep the line numbers of the file that the user wrote.
		name := fmt.Sprintf("%03d-%s.yaml", i+1, strings.TrimSuffix(filepath.Base(d.File), filepath.Ext(d.File)))
		text := strings.Repeat("\n", max(d.Line-1, 0)) + d.Text
		errs = append(errs, os.WriteFile(filepath.Join(n.policyDir(), name), []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

func (n *Node) config() string    { return filepath.Join(n.Dir, "config.yaml") }
func (n *Node) policyDir() string { return filepath.Join(n.Dir, "policies") }
func (n *Node) holder() string    { return filepath.Join(n.Dir, "holder.sock") }
func (n *Node) log() string       { return filepath.Join(n.Dir, "bulkheadd.log") }

// inventory is the manifests as the daemons shall see them: the pods that run with the addresses
// that they have, and nothing that a daemon does not read.
func (s *State) inventory(n *Node, inv *kube.Inventory) ([]byte, error) {
	var items []any
	for _, name := range slices.Sorted(maps.Keys(inv.Namespaces)) {
		items = append(items, &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: inv.Namespaces[name]},
		})
	}
	for _, other := range s.Nodes {
		items = append(items, node(other, inv.Nodes[other.Name].Labels))
	}
	running := map[string]*Pod{}
	for _, p := range s.Pods {
		running[p.String()] = p
	}
	for i := range inv.Pods {
		p := inv.Pods[i].DeepCopy()
		p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
		if pod := running[p.Namespace+"/"+p.Name]; pod != nil {
			if !s.toldOf(n, pod) {
				continue
			}
			p.Spec.NodeName, p.UID = pod.Node, ""
			p.Status.PodIP, p.Status.PodIPs = pod.Addrs[0].String(), nil
			for _, a := range pod.Addrs {
				p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
			}
		}
		items = append(items, p)
	}
	for _, svc := range inv.Services {
		items = append(items, service(svc))
	}
	return json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List", "items": items}, "", " ")
}

// startHolder starts what keeps the tables' owners while a node's daemon is away, and waits for it.
func (l *Lab) startHolder(n *Node) error {
	if err := l.spawn(n.NetNS, "holder "+n.Name, filepath.Join(n.Dir, "holder.log"), filepath.Join(l.Bin, "bulkheadd"), "holder", "--socket", n.holder()); err != nil {
		return err
	}
	for range 250 {
		if _, err := os.Stat(n.holder()); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("node %s: the holder does not listen at %s; see %s", n.Name, n.holder(), filepath.Join(n.Dir, "holder.log"))
}

// startDaemon starts a node's bulkheadd; ready waits for it.
func (l *Lab) startDaemon(n *Node) error {
	return l.spawn(n.NetNS, "bulkheadd "+n.Name, n.log(), filepath.Join(l.Bin, "bulkheadd"), "--config", n.config())
}

// StartDaemon starts a node's daemon again, after StopDaemon or KillDaemon, and waits until it
// answers.
func (l *Lab) StartDaemon(ctx context.Context, node string) error {
	n := l.node(node)
	if n == nil {
		return fmt.Errorf("node %s: not in lab %s", node, l.Name)
	}
	if err := l.startDaemon(n); err != nil {
		return err
	}
	return n.ready(ctx)
}

// StopDaemon ends a node's daemon with SIGTERM; its rules stay.
func (l *Lab) StopDaemon(node string) error { return end(l.daemon(node)) }

// KillDaemon ends a node's daemon with SIGKILL, as a crash would; its rules stay.
func (l *Lab) KillDaemon(node string) error { return l.signal(node, unix.SIGKILL) }

// FreezeDaemon stops a node's daemon where it is (SIGSTOP): its sockets are open and nobody answers.
func (l *Lab) FreezeDaemon(node string) error { return l.signal(node, unix.SIGSTOP) }

// ThawDaemon lets a frozen daemon go on.
func (l *Lab) ThawDaemon(node string) error { return l.signal(node, unix.SIGCONT) }

// signal sends a signal to a node's daemon; after SIGKILL it waits until the process is gone.
func (l *Lab) signal(node string, sig unix.Signal) error {
	pids := l.daemon(node)
	if len(pids) == 0 {
		return fmt.Errorf("node %s: no daemon runs", node)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil {
			return fmt.Errorf("node %s: pid %d: %w", node, pid, err)
		}
	}
	if sig == unix.SIGKILL {
		return end(pids)
	}
	return nil
}

// DaemonPID is the process of a node's daemon; 0 when none runs.
func (l *Lab) DaemonPID(node string) int {
	for _, pid := range l.daemon(node) {
		return pid
	}
	return 0
}

func (l *Lab) daemon(node string) []int {
	var out []int
	for pid, what := range recorded(l.Dir) {
		if what == "bulkheadd "+node {
			out = append(out, pid)
		}
	}
	return out
}

// ready waits until the node's daemon answers on its socket.
func (n *Node) ready(ctx context.Context) error {
	c := api.NewClient(n.Socket())
	defer c.Close()
	for {
		_, err := c.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s: bulkheadd: %w; its log ends:\n%s", n.Name, err, tail(n.log()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// inForce waits until every daemon has taken every policy and every pod holds a ruleset.
func (s *State) inForce(ctx context.Context) error {
	for _, n := range s.Nodes {
		if err := s.nodeInForce(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) nodeInForce(ctx context.Context, n *Node) error {
	c := api.NewClient(n.Socket())
	defer c.Close()
	pods := 0
	for _, p := range s.Pods {
		if p.Node == n.Name && !p.HostNetwork {
			pods++
		}
	}
	for {
		st, err := c.Status(ctx)
		var list []api.Workload
		if err == nil {
			list, err = c.Workloads(ctx)
		}
		why := ""
		switch {
		case err != nil:
			why = err.Error()
		case len(st.PolicyErrors) > 0:
			return fmt.Errorf("node %s: policies refused:\n%s", n.Name, strings.Join(st.PolicyErrors, "\n"))
		case st.Policies < s.Policies:
			why = fmt.Sprintf("%d of %d policies in force", st.Policies, s.Policies)
		default:
			why = s.unsettled(list, pods)
		}
		if why == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s: %s: %w; its log ends:\n%s", n.Name, why, ctx.Err(), tail(n.log()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// unsettled says what is still missing on a node; empty when nothing is.
func (s *State) unsettled(list []api.Workload, pods int) string {
	local := 0
	for _, w := range list {
		if !w.Local {
			continue
		}
		if w.Error != "" {
			return fmt.Sprintf("workload %s/%s: %s", w.Namespace, w.Name, w.Error)
		}
		if !w.Applied.IsZero() && w.Mode == s.Mode {
			local++
		}
	}
	if local < pods {
		return fmt.Sprintf("%d of %d workloads hold their rules", local, pods)
	}
	return ""
}

// node writes a Node back as a manifest, with the addresses that it has in the lab.
func node(n *Node, labels identity.Labels) *corev1.Node {
	out := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: labels}}
	for _, a := range n.Known {
		out.Status.Addresses = append(out.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return out
}

// service writes a Service back as a manifest. Of which kind its addresses are makes no difference
// to a reader.
func service(svc identity.KubeService) *corev1.Service {
	out := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name},
		Spec:       corev1.ServiceSpec{Selector: svc.Selector},
	}
	for _, a := range svc.Addrs {
		out.Spec.ClusterIPs = append(out.Spec.ClusterIPs, a.String())
	}
	for _, p := range svc.Ports {
		target := intstr.FromInt32(int32(p.Target))
		if p.TargetName != "" {
			target = intstr.FromString(p.TargetName)
		}
		out.Spec.Ports = append(out.Spec.Ports, corev1.ServicePort{
			Name: p.Name, Protocol: corev1.Protocol(p.Protocol.String()), Port: int32(p.Port), TargetPort: target,
		})
	}
	return out
}
