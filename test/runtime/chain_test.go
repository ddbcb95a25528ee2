package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// Who may do what. Everything is in force before any container is made; only labels say whom it is
// about.
const policies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: bad, namespace: NAMESPACE}
spec:
  podSelector: {matchLabels: {app: bad}}
  policyTypes: [Egress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: good, namespace: NAMESPACE}
spec:
  podSelector: {matchLabels: {app: good}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 192.0.2.0/24}}]
    ports: [{protocol: TCP, port: 9999}]
`

// flood is what containers do from their first instruction on: connect to the world, many times at
// once, and once a second after that.
const flood = `for i in 1 2 3 4 5 6 7 8; do nc -w 1 192.0.2.1 9999 </dev/null & done
while sleep 1; do nc -w 1 192.0.2.1 9999 </dev/null; done`

// writeChain writes two networks with us at the end, one folder with all plugins, and what
// bulkheadd reads.
func (n *node) writeChain() {
	n.t.Helper()
	for i, name := range []string{"bh", "bh2"} {
		n.write(fmt.Sprintf("net.d/%d0-%s.conflist", i+1, name), fmt.Sprintf(`{ "cniVersion": "1.0.0", "name": %q, "plugins": [
  { "type": "bridge", "bridge": "cni%d", "isGateway": true,
    "ipam": { "type": "host-local", "dataDir": %q, "ranges": [[{"subnet":"10.88.%d.0/24"}]], "routes": [{"dst":"0.0.0.0/0"}] } },
  { "type": "tuning" },
  { "type": "bulkhead-cni", "socket": %q, "capabilities": { "io.kubernetes.cri.pod-annotations": true } } ] }
`, name, i, n.path("ipam"), i, n.path("api.sock")))
	}
	bin := programsDir(n.t)
	plugins, err := filepath.Glob(filepath.Join(bin, "cni", "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	must := func(err error) {
		n.t.Helper()
		if err != nil {
			n.t.Fatal(err)
		}
	}
	must(os.Mkdir(n.path("plugins"), 0o755)) // containerd 1.6 knows one folder only
	for _, p := range append(plugins, filepath.Join(bin, "bulkhead-cni")) {
		must(os.Symlink(p, filepath.Join(n.path("plugins"), filepath.Base(p))))
	}
	n.write("bulkheadd.yaml", fmt.Sprintf(`
socket: %[1]s/api.sock
node: node
stateDir: %[1]s/state
policyDir: %[1]s/policies
inventoryDir: %[1]s/inventory
alertLog: %[1]s/alerts.jsonl
defaultMode: enforce
containerd: %[1]s/containerd.sock
podman: %[1]s/podman.sock
`, n.dir))
	must(os.Mkdir(n.path("inventory"), 0o755))
	for _, namespace := range []string{"default", "shop"} {
		n.write("policies/"+namespace+".yaml", strings.ReplaceAll(policies, "NAMESPACE", namespace))
	}
}

// workload finds a workload by namespace/name; nil when bulkheadd has none.
func (n *node) workload(name string) (*api.Workload, error) {
	list, err := n.api.Workloads(context.Background())
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(w api.Workload) bool { return w.Local && w.Namespace+"/"+w.Name == name })
	if i < 0 {
		return nil, nil
	}
	return &list[i], nil
}

// wantWorkload compares what bulkheadd knows of a container with what it was run with.
func (n *node) wantWorkload(name, service string, labels map[string]string) api.Workload {
	n.t.Helper()
	w, err := n.workload(name)
	if err != nil || w == nil {
		n.t.Fatalf("workload %s: not there: %v\n%s", name, err, n.logs())
	}
	if w.Service != service {
		n.t.Errorf("workload %s: service %s, want %s", name, w.Service, service)
	}
	if !maps.Equal(w.Labels, labels) {
		n.t.Errorf("workload %s: labels %v, want %v", name, w.Labels, labels)
	}
	if !w.Guarded || !w.StartSeen || w.Error != "" || w.Applied.IsZero() || len(w.Addrs) == 0 {
		n.t.Errorf("workload %s is not in order: %+v", name, *w)
	}
	return *w
}

// wantGone waits until bulkheadd has forgotten a workload; DEL has come before the runtime's
// command returned.
func (n *node) wantGone(name string) {
	n.t.Helper()
	n.eventually(name+" to be forgotten", func() error {
		w, err := n.workload(name)
		if err == nil && w != nil {
			err = errors.New("still there")
		}
		return err
	})
}

// leases counts the addresses that host-local holds for a network.
func (n *node) leases(network string) int {
	held, _ := filepath.Glob(filepath.Join(n.path("ipam"), network, "10.88.*"))
	return len(held)
}

func (n *node) denied() uint64 {
	s, err := n.api.Status(context.Background())
	if err != nil {
		n.t.Error(err)
	}
	return s.Counters.Denied
}
