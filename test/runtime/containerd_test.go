package runtime

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/runtimes"
)

// otherContainerd names a folder with another containerd (and its shim) that the test runs as well.
const otherContainerd = "BULKHEAD_CONTAINERD"

// TestContainerd is the life of pods under containerd.
func TestContainerd(t *testing.T) {
	t.Parallel()
	needs(t, "containerd", "ctr", "runc", "containerd-shim-runc-v2")
	path, err := exec.LookPath("containerd")
	if err != nil {
		t.Fatal(err)
	}
	bins := []string{filepath.Dir(path)}
	if other := os.Getenv(otherContainerd); other != "" {
		bins = append(bins, other)
	}
	for _, bin := range bins {
		t.Run(strings.Trim(strings.ReplaceAll(bin, "/", "_"), "_"), func(t *testing.T) {
			c := newContainerd(t, bin)
			c.firstPacket(t)
			c.restart(t)
			c.containerdRestart(t)
			c.daemonAway(t)
			c.outsideOfPods(t)
		})
	}
}

var (
	badLabels  = map[string]string{"app": "bad", "tier": "back"}
	goodLabels = map[string]string{"app": "good"}
)

// kubelet adds its own labels to a pod's, which say no more than CNI_ARGS.
func kubelet(name string, labels map[string]string) map[string]string {
	out := map[string]string{"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "uid-of-" + name}
	for k, v := range labels {
		out[k] = v
	}
	return out
}

// firstPacket: labels are known, and rules in force, before a pod's first instruction.
func (c *containerd) firstPacket(t *testing.T) {
	id := c.runPod(c.pod("bad-1", 0, kubelet("bad-1", badLabels)))
	bad := c.wantWorkload("shop/bad-1", "shop/bad", badLabels)
	if bad.ID != id {
		t.Errorf("workload of id %s, sandbox %s", bad.ID, id)
	}
	c.runPod(c.pod("good-1", 0, goodLabels))
	good := c.wantWorkload("shop/good-1", "shop/good", goodLabels)
	c.eventually("the good one's connections", func() error {
		if c.world.heard(good.Addrs...) < 3 {
			return errors.New("not heard yet")
		}
		return nil
	})
	c.eventually("the bad one to be denied", func() error {
		if c.denied() == 0 {
			return errors.New("nothing denied")
		}
		return nil
	})
	if heard := c.world.heard(bad.Addrs...); heard > 0 {
		t.Errorf("%d connections of the bad one got out", heard)
	}
}

// restart: a pod that is started again is a new sandbox of the same name. DEL comes at stop and once
// more at remove.
func (c *containerd) restart(t *testing.T) {
	before := c.wantWorkload("shop/bad-1", "shop/bad", badLabels)
	c.stopPod(before.ID)
	c.wantGone("shop/bad-1")
	id := c.runPod(c.pod("bad-1", 1, badLabels))
	after := c.wantWorkload("shop/bad-1", "shop/bad", badLabels)
	if after.ID != id || id == before.ID {
		t.Errorf("workload of id %s, sandbox %s, before %s", after.ID, id, before.ID)
	}
	c.removePod(before.ID) // the former one's last DEL is late, and not the present one's
	c.wantWorkload("shop/bad-1", "shop/bad", badLabels)
	if heard := c.world.heard(after.Addrs...); heard > 0 {
		t.Errorf("%d connections of the bad one got out after its restart", heard)
	}
}

// containerdRestart: pods and rules stay, and the next pod is known as well.
func (c *containerd) containerdRestart(t *testing.T) {
	c.process.stop(t, unix.SIGTERM)
	c.wantWorkload("shop/bad-1", "shop/bad", badLabels)
	c.startContainerd()
	c.connect()
	id := c.runPod(c.pod("later-1", 0, goodLabels))
	c.wantWorkload("shop/later-1", "shop/good", goodLabels)
	c.stopPod(id)
	c.removePod(id)
	c.wantGone("shop/later-1")
}

// daemonAway: nothing starts without rules, the pod's event says why, nothing that stops is held
// up, and no address leaks.
func (c *containerd) daemonAway(t *testing.T) {
	before := c.leases("bh")
	bad := c.wantWorkload("shop/bad-1", "shop/bad", badLabels)
	good := c.wantWorkload("shop/good-1", "shop/good", goodLabels)
	c.stopDaemon()
	_, err := c.tryRun(c.pod("early-1", 0, goodLabels))
	const sentence = "bulkheadd is away: the container would start without its rules; try again later"
	if err == nil || !strings.Contains(err.Error(), sentence) {
		t.Errorf("run without the daemon: %v; want %q in it", err, sentence)
	}
	if now := c.leases("bh"); now != before {
		t.Errorf("%d addresses held after the failed start, %d before", now, before)
	}
	c.stopPod(bad.ID)
	c.removePod(bad.ID)
	if now := c.leases("bh"); now != before-1 {
		t.Errorf("%d addresses held after a stop, %d before", now, before)
	}
	c.startDaemon()
	c.wantWorkload("shop/good-1", "shop/good", goodLabels)
	c.wantGone("shop/bad-1")
	id := c.runPod(c.pod("early-1", 1, goodLabels))
	c.wantWorkload("shop/early-1", "shop/good", goodLabels)
	for _, id := range []string{id, good.ID} {
		c.stopPod(id)
		c.removePod(id)
	}
	c.wantGone("shop/good-1")
	if now := c.leases("bh"); now != 0 {
		t.Errorf("%d addresses still held at the end", now)
	}
}

// outsideOfPods: what runs in another of containerd's namespaces is found by its id, also by the one
// that nerdctl and ctr tell CNI.
func (c *containerd) outsideOfPods(t *testing.T) {
	c.ctr("-n", "default", "images", "import", c.path("pause.tar"))
	c.ctr("-n", "default", "containers", "create", "--label", "app=box", "localhost/pause:1", "box", "/bin/sh")
	sources := runtimes.New(runtimes.Config{Containerd: c.path("containerd.sock")})
	for id, want := range map[string]string{"box": "box", "default-box": "box", "other-box": "", "nobody": ""} {
		found, err := sources.Labels(t.Context(), id)
		if err != nil || found.Labels["app"] != want || (found.Source == "containerd") != (want != "") {
			t.Errorf("labels of %s: %+v, %v; want app=%q", id, found, err, want)
		}
	}
	c.ctr("-n", "default", "containers", "rm", "box")
}
