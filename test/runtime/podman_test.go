package runtime

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// podman is Podman on a node, with its state in the node's folder.
type podman struct{ *node }

// newPodman makes one. known is false where this Podman cannot do CNI: 5.0 and later are mostly built
// with netavark only, which calls no plugin.
func newPodman(t *testing.T) (p podman, known bool) {
	t.Helper()
	needs(t, "podman", "runc", "conmon")
	p = podman{newNode(t)}
	p.write("containers.conf", fmt.Sprintf(`[network]
network_backend = "cni"
cni_plugin_dirs = [%q]
network_config_dir = %q
default_network = "bh"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[containers]
log_driver = "k8s-file"
# What the tests may have anyway: raising it needs CAP_SYS_RESOURCE.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`, p.path("plugins"), p.path("net.d")))
	if out, err := p.try(p.argv("info")...); err != nil && strings.Contains(out, "cni support is not enabled") {
		t.Logf("this Podman calls no CNI plugin, so there is nothing to prove with it: %s", out)
		return p, false
	}
	p.run(p.argv("import", p.writeRootfs(), "localhost/bb:1")...)
	p.spawn("podman", p.argv("system", "service", "-t", "0", "unix://"+p.path("podman.sock"))...)
	p.eventually("Podman's service", func() error {
		if !exists(p.path("podman.sock")) {
			return errors.New("no socket")
		}
		return nil
	})
	return p, true
}

func (p podman) argv(args ...string) []string {
	return append([]string{"podman", "--root", p.path("root"), "--runroot", p.path("runroot"), "--tmpdir", p.path("tmp")}, args...)
}

func (p podman) pod(args ...string) string { p.t.Helper(); return p.run(p.argv(args...)...) }

// start runs a container that floods from its first instruction, and returns its id.
func (p podman) start(name string, args ...string) string {
	p.t.Helper()
	return lastLine(p.pod(p.runArgs(name, args...)...))
}

func (p podman) runArgs(name string, args ...string) []string {
	args = append([]string{"run", "-d", "--name", name, "--cgroup-parent", "/" + p.cgroup()}, args...)
	return append(args, "localhost/bb:1", "/bin/sh", "-c", flood)
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// TestPodman is the life of containers under Podman.
func TestPodman(t *testing.T) {
	t.Parallel()
	p, known := newPodman(t)
	if !known {
		return
	}
	p.firstPacket(t)
	p.restart(t)
	p.networks(t)
	p.pods(t)
	p.inventoryFirst(t)
	p.daemonAway(t)
}

// firstPacket: labels are known, and rules in force, before a container's first instruction. Both
// containers do the same; only their labels differ.
func (p podman) firstPacket(t *testing.T) {
	began := time.Now()
	id := p.start("bad", "--label", "app=bad", "--label", "tier=back")
	t.Logf("podman run: %v", time.Since(began))
	bad := p.wantWorkload("default/bad", "default/bad", map[string]string{"app": "bad", "tier": "back"})
	if bad.ID != id {
		t.Errorf("workload of id %s, container %s", bad.ID, id)
	}
	p.start("good", "--label", "app=good")
	good := p.wantWorkload("default/good", "default/good", map[string]string{"app": "good"})
	p.eventually("the good one's connections", func() error {
		if p.world.heard(good.Addrs...) < 3 {
			return errors.New("not heard yet")
		}
		return nil
	})
	p.eventually("the bad one to be denied", func() error {
		if p.denied() == 0 {
			return errors.New("nothing denied")
		}
		return nil
	})
	if heard := p.world.heard(bad.Addrs...); heard > 0 {
		t.Errorf("%d connections of the bad one got out", heard)
	}
}

// restart: stop is DEL, start is ADD with the same id in a new namespace, with the same labels and
// the same verdict, however long ago the container was made.
func (p podman) restart(t *testing.T) {
	before := p.wantWorkload("default/bad", "default/bad", map[string]string{"app": "bad", "tier": "back"})
	p.pod("stop", "-t", "0", "bad")
	p.wantGone("default/bad")
	p.pod("start", "bad")
	after := p.wantWorkload("default/bad", "default/bad", before.Labels)
	if after.ID != before.ID || after.NetNS == before.NetNS {
		t.Errorf("after the restart: id %s in %s, before: %s in %s", after.ID, after.NetNS, before.ID, before.NetNS)
	}
	time.Sleep(1500 * time.Millisecond) // it connects from its first instruction, and each second
	if heard := p.world.heard(after.Addrs...); heard > 0 {
		t.Errorf("%d connections of the bad one got out after its restart", heard)
	}
}

// networks: a second network is a second interface of the same workload.
func (p podman) networks(t *testing.T) {
	p.start("two", "--label", "app=two", "--network", "bh", "--network", "bh2")
	w := p.wantWorkload("default/two", "default/two", map[string]string{"app": "two"})
	if len(w.Addrs) != 2 || !strings.HasPrefix(w.Addrs[0], "10.88.0.") || !strings.HasPrefix(w.Addrs[1], "10.88.1.") {
		t.Errorf("addresses %v, want one of each network", w.Addrs)
	}
	p.pod("rm", "-f", "-t", "0", "two")
	p.wantGone("default/two")
}

// pods: the namespace is the infra container's, and the labels are the pod's.
func (p podman) pods(t *testing.T) {
	p.pod("pod", "create", "--name", "group", "--network", "bh", "--infra-image", "localhost/bb:1",
		"--infra-command", "/bin/sleep 9999", "--label", "app=group", "--cgroup-parent", "/"+p.cgroup())
	p.start("member", "--pod", "group", "--label", "app=member")
	list, err := p.api.Workloads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, w := range list {
		if w.Labels["app"] == "group" && w.Service == "default/group" {
			found++
		}
		if w.Labels["app"] == "member" {
			t.Errorf("a container in a pod became a workload: %+v", w)
		}
	}
	if found != 1 {
		t.Errorf("%d workloads for the pod in %+v", found, list)
	}
	p.pod("pod", "rm", "-f", "-t", "0", "group")
}

// inventoryFirst: what the inventory says of a namespace/name goes before what Podman says.
func (p podman) inventoryFirst(t *testing.T) {
	p.write("inventory/listed.yaml", `
apiVersion: v1
kind: Pod
metadata: {name: listed, namespace: default, labels: {app: inventory}}
spec: {nodeName: node, containers: [{name: c, image: c}]}
`)
	p.eventually("the inventory to be read", func() error {
		list, err := p.api.Workloads(t.Context())
		if err == nil && !strings.Contains(fmt.Sprint(list), "listed") {
			err = errors.New("not listed")
		}
		return err
	})
	p.start("listed", "--label", "app=runtime")
	p.wantWorkload("default/listed", "default/inventory", map[string]string{"app": "inventory"})
	p.pod("rm", "-f", "-t", "0", "listed")
}

// daemonAway: nothing starts without rules, the operator reads why, nothing that stops is held up,
// and no address leaks. A daemon that comes back knows what ran on, and what is gone.
func (p podman) daemonAway(t *testing.T) {
	before := p.leases("bh")
	p.stopDaemon()
	out, err := p.try(p.argv(p.runArgs("early", "--label", "app=good")...)...)
	const sentence = "bulkheadd is away: the container would start without its rules; try again later"
	if err == nil || !strings.Contains(out, sentence) {
		t.Errorf("run without the daemon: %v; want %q in\n%s", err, sentence, out)
	}
	p.pod("rm", "-f", "-t", "0", "early")
	if now := p.leases("bh"); now != before {
		t.Errorf("%d addresses held after the failed start, %d before", now, before)
	}
	p.pod("stop", "-t", "0", "bad")
	if now := p.leases("bh"); now != before-1 {
		t.Errorf("%d addresses held after a stop, %d before", now, before)
	}
	p.startDaemon()
	p.wantWorkload("default/good", "default/good", map[string]string{"app": "good"})
	p.wantGone("default/bad")
	p.pod("start", "bad")
	p.wantWorkload("default/bad", "default/bad", map[string]string{"app": "bad", "tier": "back"})
	p.pod("rm", "-f", "-t", "0", "-a")
	p.wantGone("default/good")
	if now := p.leases("bh") + p.leases("bh2"); now != 0 {
		t.Errorf("%d addresses still held at the end", now)
	}
}
