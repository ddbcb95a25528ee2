package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// cniVersion of the chain; 1.1.0 is the newest that the reference plugins speak.
const cniVersion = "1.1.0"

// conflists writes a node's network configurations: one per bridge and set of families, since
// host-local gives an address from each range set it has.
func (s *State) conflists(n *Node) error {
	dir := filepath.Join(n.Dir, "cni", "net.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	resolv := "# no resolver in this lab\n"
	if len(s.Resolvers) > 0 {
		resolv = "search svc.cluster.local cluster.local\noptions ndots:5\n"
		for _, a := range s.Resolvers {
			resolv += "nameserver " + a.String() + "\n"
		}
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "resolv.conf"), []byte(resolv), 0o644); err != nil {
		return err
	}
	for _, p := range s.Pods {
		if p.Node != n.Name || p.HostNetwork {
			continue
		}
		file := filepath.Join(dir, networkName(p)+".conflist")
		if _, err := os.Stat(file); err == nil {
			continue
		}
		b, err := json.MarshalIndent(s.conflist(n, p), "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// networkName is the CNI network that a pod joins: "pods", "pods-4" or "pods-6" by its families,
// with the bridge's number behind it from the second bridge on.
func networkName(p *Pod) string {
	name := "pods"
	if len(p.Addrs) == 1 && p.Addrs[0].Is4() {
		name = "pods-4"
	} else if len(p.Addrs) == 1 {
		name = "pods-6"
	}
	if p.Net > 0 {
		name += fmt.Sprintf("-%d", p.Net)
	}
	return name
}

func (s *State) conflist(n *Node, p *Pod) map[string]any {
	net := n.Nets[p.Net]
	var ranges, routes []any
	for _, a := range p.Addrs {
		block, gw := net.Block6, net.Gateway6
		if a.Is4() {
			block, gw = net.Block4, net.Gateway4
		}
		ranges = append(ranges, []any{map[string]string{"subnet": block.String(), "gateway": gw.String()}})
		routes = append(routes, map[string]string{"dst": everywhere(a.Is4()).String()})
	}
	plugins := []any{map[string]any{
		"type": "bridge", "bridge": net.Bridge, "isGateway": true, "ipMasq": false, "hairpinMode": true,
		"capabilities": map[string]bool{"ips": true},
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(n.Dir, "cni", "ipam"),
			"resolvConf": filepath.Join(n.Dir, "resolv.conf"), "ranges": ranges, "routes": routes,
		},
	}}
	if s.Bulkhead {
		plugins = append(plugins, map[string]any{"type": "bulkhead-cni", "socket": n.Socket()})
	}
	return map[string]any{"cniVersion": cniVersion, "name": networkName(p), "plugins": plugins}
}

// chain is what libcni needs for one pod.
func (s *State) chain(p *Pod) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	n := s.node(p.Node)
	list, err := libcni.ConfListFromFile(filepath.Join(n.Dir, "cni", "net.d", networkName(p)+".conflist"))
	if err != nil {
		return nil, nil, nil, err
	}
	cfg := libcni.NewCNIConfigWithCacheDir([]string{filepath.Join(s.Bin, "cni"), s.Bin}, filepath.Join(n.Dir, "cni", "cache"), nil)
	var ips []string
	for _, a := range p.Addrs {
		ips = append(ips, a.String())
	}
	rt := &libcni.RuntimeConf{
		ContainerID: p.ContainerID, NetNS: p.Path(), IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Namespace}, {"K8S_POD_NAME", p.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.ContainerID}, {"K8S_POD_UID", p.UID},
		},
		CapabilityArgs: map[string]any{"ips": ips},
	}
	return cfg, list, rt, nil
}

// tryAgain is how often an ADD is repeated when a plugin says code 11, "try again later", as a
// runtime does; each time in a new namespace.
const tryAgain = 5

// attach makes a pod's namespace and runs ADD.
func (s *State) attach(ctx context.Context, p *Pod) error {
	for try := 1; ; try++ {
		err := s.add(ctx, p)
		var e *types.Error
		if err == nil || try == tryAgain || !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || ctx.Err() != nil {
			return err
		}
		if err := s.detach(ctx, p); err != nil {
			return err
		}
	}
}

func (s *State) add(ctx context.Context, p *Pod) error {
	if err := makeNamespace(p.NetNS, hostSettings); err != nil {
		return fmt.Errorf("pod %s: %w", p, err)
	}
	cfg, list, rt, err := s.chain(p)
	if err != nil {
		return fmt.Errorf("pod %s: %w", p, err)
	}
	var result types.Result
	err = within(s.node(p.Node).Path(), func() error {
		result, err = cfg.AddNetworkList(ctx, list, rt)
		return err
	})
	if err != nil {
		return fmt.Errorf("pod %s: CNI ADD: %w", p, err)
	}
	return checkResult(p, result)
}

// checkResult holds the chain to the addresses asked for.
func checkResult(p *Pod, result types.Result) error {
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	var r struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("pod %s: CNI result: %w", p, err)
	}
	got := map[netip.Addr]bool{}
	for _, ip := range r.IPs {
		got[ip.Address.Addr()] = true
	}
	for _, a := range p.Addrs {
		if !got[a] {
			return fmt.Errorf("pod %s: CNI gave %v, not %s", p, r.IPs, a)
		}
	}
	return nil
}

// detach runs DEL and removes the pod's namespace, as a runtime does.
func (s *State) detach(ctx context.Context, p *Pod) error {
	cfg, list, rt, err := s.chain(p)
	if err != nil {
		return fmt.Errorf("pod %s: %w", p, err)
	}
	err = within(s.node(p.Node).Path(), func() error { return cfg.DelNetworkList(ctx, list, rt) })
	if err != nil {
		err = fmt.Errorf("pod %s: CNI DEL: %w", p, err)
	}
	return errors.Join(err, removeNamespace(p.NetNS))
}
