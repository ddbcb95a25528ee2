package cni_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/cni"
)

// chain is a real CNI chain on a node of its own: bridge with host-local, then us, driven by
// libcni as a runtime drives it.
//
//	node (this test's namespace)             pod (newPod)
//	  cni0 10.88.0.1 ── vethXXXX ─────────── eth0 10.88.0.N
type chain struct {
	dir    string
	cni    *libcni.CNIConfig
	list   *libcni.NetworkConfigList
	daemon *daemon
}

func newChain(t *testing.T, version, keys string) *chain {
	t.Helper()
	ours, reference := plugin(t), tools(t)
	enterNode(t)
	dir := t.TempDir()
	c := &chain{dir: dir, daemon: &daemon{socket: filepath.Join(dir, "api.sock")}}
	c.cni = libcni.NewCNIConfigWithCacheDir([]string{ours, reference}, filepath.Join(dir, "cache"), nil)
	text := fmt.Sprintf(`{ "cniVersion": %q, "name": "pods", "plugins": [
	  { "type": "bridge", "bridge": "cni0", "isGateway": true,
	    "ipam": { "type": "host-local", "dataDir": %q, "ranges": [[{"subnet":"10.88.0.0/24"}]], "routes": [{"dst":"0.0.0.0/0"}] },
	    "dns": { "nameservers": ["10.96.0.10"] } },
	  { "type": "bulkhead-cni", "socket": %q, "capabilities": {"io.kubernetes.cri.pod-annotations": true, "dns": true} %s } ] }`,
		version, filepath.Join(dir, "ipam"), c.daemon.socket, keys)
	list, err := libcni.ConfListFromBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c.list = list
	return c
}

// pod is what a runtime says of one container; the arguments are those of containerd.
func pod(id, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: id, NetNS: netns, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", id}},
		CapabilityArgs: map[string]any{
			"io.kubernetes.cri.pod-annotations": map[string]string{"a": "b"},
			"dns":                               map[string]any{"servers": []string{"169.254.20.10"}},
		},
	}
}

func (c *chain) add(rt *libcni.RuntimeConf) (types.Result, error) {
	return c.cni.AddNetworkList(context.Background(), c.list, rt)
}

func (c *chain) del(rt *libcni.RuntimeConf) error {
	return c.cni.DelNetworkList(context.Background(), c.list, rt)
}

// leases are the addresses that host-local holds.
func (c *chain) leases() (held []string) {
	files, _ := filepath.Glob(filepath.Join(c.dir, "ipam", "pods", "10.88.*"))
	for _, f := range files {
		held = append(held, filepath.Base(f))
	}
	return held
}

func (c *chain) journal(t *testing.T) (ids []string) {
	t.Helper()
	list, err := cni.Journal{Dir: cni.PendingDir(c.daemon.socket)}.List()
	if err != nil {
		t.Error(err)
	}
	for _, p := range list {
		ids = append(ids, p.Request.ContainerID)
	}
	return ids
}

func wantCode(t *testing.T, err error, code uint) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want CNI error %d", err, code)
	}
}

// TestChainLife is one container's life in every version: ADD, CHECK where there is one, DEL, and
// DEL again.
func TestChainLife(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			c := newChain(t, version, "")
			c.daemon.start(t)
			rt := pod("web-1", newPod(t))
			result, err := c.add(rt)
			if err != nil {
				t.Fatal(err)
			}
			heard := c.daemon.take()
			wantResult(t, c, rt, result, heard)
			if version != "0.3.1" {
				if err := c.cni.CheckNetworkList(context.Background(), c.list, rt); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				want := heard[0]
				want.Command = "CHECK"
				if diff := cmp.Diff([]api.CNIRequest{want}, c.daemon.take()); diff != "" {
					t.Errorf("CHECK differs from ADD: %s", diff)
				}
			}
			for range 2 {
				if err := c.del(rt); err != nil {
					t.Errorf("DEL: %v", err)
				}
			}
			if heard := c.daemon.take(); len(heard) != 2 || heard[0].Command != "DEL" || heard[1].Command != "DEL" {
				t.Errorf("the daemon heard %s", compact(heard))
			}
			if held := c.leases(); len(held) > 0 {
				t.Errorf("leases left: %v", held)
			}
		})
	}
}

// wantResult compares what the daemon heard and what the runtime got with what is in the kernel.
func wantResult(t *testing.T, c *chain, rt *libcni.RuntimeConf, result types.Result, heard []api.CNIRequest) {
	t.Helper()
	r, err := types100.NewResultFromResult(result)
	if err != nil {
		t.Fatal(err)
	}
	if result.Version() != c.list.CNIVersion || len(r.Interfaces) != 3 || len(r.IPs) != 1 || len(r.Routes) != 1 || len(r.DNS.Nameservers) != 1 {
		t.Errorf("the result lost something: %s", compact(result))
	}
	host := r.Interfaces[1].Name
	if _, err := net.InterfaceByName(host); err != nil {
		t.Errorf("host's end %s: %v", host, err)
	}
	want := []api.CNIRequest{{
		Command: "ADD", ContainerID: rt.ContainerID, NetNS: rt.NetNS, IfName: "eth0", Network: "pods",
		Args:          map[string]string{"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": rt.ContainerID},
		RuntimeConfig: json.RawMessage(`{"dns":{"servers":["169.254.20.10"]},"io.kubernetes.cri.pod-annotations":{"a":"b"}}`),
		Resolvers:     []string{"169.254.20.10", "10.96.0.10"},
		Interfaces: []api.CNIInterface{{Name: "eth0", MAC: r.Interfaces[2].Mac, Host: host,
			Addrs: []string{r.IPs[0].Address.String()}, Gateways: []string{"10.88.0.1"}}},
	}}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Error(diff)
	}
}

// TestChainDaemonAway: ADD fails so that the runtime tries again, and what it then tears down
// leaks nothing.
func TestChainDaemonAway(t *testing.T) {
	c := newChain(t, "1.0.0", "")
	rt := pod("web-1", newPod(t))
	_, err := c.add(rt)
	wantCode(t, err, types.ErrTryAgainLater)
	if err := c.del(rt); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if held := c.leases(); len(held) > 0 {
		t.Errorf("leases left: %v", held)
	}
	c.daemon.start(t)
	if _, err := c.add(rt); err != nil {
		t.Errorf("the next try: %v", err)
	}
}

// TestChainLateDel: the daemon goes, the namespace goes, the runtime forgets its result; DEL
// succeeds and the address is free.
func TestChainLateDel(t *testing.T) {
	c := newChain(t, "1.1.0", "")
	stop := c.daemon.start(t)
	netns := newPod(t)
	rt := pod("web-1", netns)
	if _, err := c.add(rt); err != nil {
		t.Fatal(err)
	}
	if held := c.leases(); len(held) != 1 {
		t.Fatalf("leases %v", held)
	}
	stop()
	dropPod(t, netns)
	if err := os.RemoveAll(filepath.Join(c.dir, "cache")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{netns, netns, ""} {
		rt.NetNS = path
		if err := c.del(rt); err != nil {
			t.Errorf("DEL in %q: %v", path, err)
		}
	}
	if held := c.leases(); len(held) > 0 {
		t.Errorf("leases left: %v", held)
	}
}

// TestChainOpen: with failurePolicy open a container starts without the daemon, the journal says
// what is to be adopted, and its DEL takes it out again.
func TestChainOpen(t *testing.T) {
	c := newChain(t, "1.1.0", `, "failurePolicy": "open"`)
	a, b := pod("web-1", newPod(t)), pod("web-2", newPod(t))
	for _, rt := range []*libcni.RuntimeConf{a, b} {
		if _, err := c.add(rt); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.cni.GetStatusNetworkList(context.Background(), c.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	list, err := cni.Journal{Dir: cni.PendingDir(c.daemon.socket)}.List()
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	r := list[0].Request
	if r.ContainerID != "web-1" || r.NetNS != a.NetNS || len(r.Interfaces) != 1 || len(r.Interfaces[0].Addrs) != 1 ||
		!strings.Contains(list[0].Cause, "no such file or directory") || list[0].Time.IsZero() {
		t.Errorf("journalled: %s", compact(list[0]))
	}
	// CHECK does not pretend.
	wantCode(t, c.cni.CheckNetworkList(context.Background(), c.list, a), types.ErrTryAgainLater)
	if err := c.del(a); err != nil {
		t.Error(err)
	}
	if ids := c.journal(t); fmt.Sprint(ids) != "[web-2]" {
		t.Errorf("journal after DEL: %v", ids)
	}
}

// TestChainOpenClosesTheRace: the daemon comes up, and reads the journal, just before the plugin
// has written to it; the plugin asks once more.
func TestChainOpenClosesTheRace(t *testing.T) {
	c := newChain(t, "1.1.0", `, "failurePolicy": "open"`)
	tries := 0
	c.daemon.answer = func(context.Context, api.CNIRequest) error {
		if tries++; tries == 1 {
			return api.Errorf(api.NotReady, "starting")
		}
		return nil
	}
	c.daemon.start(t)
	if _, err := c.add(pod("web-1", newPod(t))); err != nil {
		t.Fatal(err)
	}
	if ids := c.journal(t); tries != 2 || len(ids) > 0 {
		t.Errorf("%d tries, journal %v", tries, ids)
	}
}

// TestChainGC: a runtime names one of two attachments; libcni sends DEL for the other, and then
// GC. Without a list nothing of ours is cleaned.
func TestChainGC(t *testing.T) {
	c := newChain(t, "1.1.0", "")
	c.daemon.start(t)
	a, b := pod("web-1", newPod(t)), pod("web-2", newPod(t))
	for _, rt := range []*libcni.RuntimeConf{a, b} {
		if _, err := c.add(rt); err != nil {
			t.Fatal(err)
		}
	}
	c.daemon.take()
	keep := []types.GCAttachment{{ContainerID: "web-1", IfName: "eth0"}}
	if err := c.cni.GCNetworkList(context.Background(), c.list, &libcni.GCArgs{ValidAttachments: keep}); err != nil {
		t.Fatal(err)
	}
	heard := c.daemon.take()
	if len(heard) != 2 || heard[0].Command != "DEL" || heard[0].ContainerID != "web-2" ||
		heard[1].Command != "GC" || heard[1].Network != "pods" || fmt.Sprint(heard[1].Valid) != "[{web-1 eth0}]" {
		t.Errorf("the daemon heard %s", compact(heard))
	}
	if held := c.leases(); len(held) != 1 {
		t.Errorf("leases %v, want one", held)
	}

	err := c.cni.GCNetworkList(context.Background(), c.list, nil) // as cnitool does
	if err == nil || !strings.Contains(err.Error(), "no cni.dev/valid-attachments") {
		t.Errorf("GC without a list: %v", err)
	}
	for _, r := range c.daemon.take() {
		if r.Command == "GC" {
			t.Errorf("the daemon heard %s", compact(r))
		}
	}
}

func TestChainStatus(t *testing.T) {
	c := newChain(t, "1.1.0", "")
	status := func() error { return c.cni.GetStatusNetworkList(context.Background(), c.list) }
	wantCode(t, status(), 50)
	stop := c.daemon.start(t)
	if err := status(); err != nil {
		t.Error(err)
	}
	stop()
	wantCode(t, status(), 50)
}

// TestChainVersion is what Podman asks before it lists a network.
func TestChainVersion(t *testing.T) {
	needRoot(t)
	c := libcni.NewCNIConfigWithCacheDir([]string{plugin(t)}, t.TempDir(), nil)
	v, err := c.GetVersionInfo(context.Background(), "bulkhead-cni")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(v.SupportedVersions()); got != "[0.3.1 0.4.0 1.0.0 1.1.0]" {
		t.Error(got)
	}
}
