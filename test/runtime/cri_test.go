package runtime

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerd is containerd on a node, spoken to as a kubelet speaks to it.
type containerd struct {
	*node
	bin     string // folder of containerd and its shim
	pods    cri.RuntimeServiceClient
	process *process
}

// containerdHead is the same in both. There may be no CAP_SYS_RESOURCE to lower an OOM score.
const containerdHead = `
root = "DIR/root"
state = "DIR/state"
oom_score = 0
[grpc]
  address = "DIR/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
`

// containerdConfig by major version of the file; 2.x renamed the plugins.
var containerdConfig = map[bool]string{
	false: `version = 2
HEAD
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "DIR/plugins"
    conf_dir = "DIR/net.d"
    max_conf_num = 1
`,
	true: `version = 3
HEAD
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["DIR/plugins"]
    conf_dir = "DIR/net.d"
    max_conf_num = 1
[plugins."io.containerd.nri.v1.nri"]
  socket_path = "DIR/nri.sock"
`,
}

func newContainerd(t *testing.T, bin string) *containerd {
	t.Helper()
	c := &containerd{node: newNode(t), bin: bin}
	version, err := exec.Command(filepath.Join(bin, "containerd"), "--version").Output()
	if err != nil {
		t.Fatalf("containerd --version: %v", err)
	}
	t.Logf("%s", version)
	two := strings.Contains(string(version), " v2.") || strings.Contains(string(version), " 2.")
	c.write("config.toml", strings.NewReplacer("DIR", c.dir).Replace(strings.Replace(containerdConfig[two], "HEAD", containerdHead, 1)))
	c.startContainerd()
	c.connect()
	rootfs := c.rootfs()
	// The sandbox floods from its first instruction, as what is in a pod could.
	c.load(c.writeImage("pause.tar", "localhost/pause:1", rootfs, "/bin/sh", "-c", flood))
	return c
}

func (c *containerd) startContainerd() {
	c.t.Helper()
	c.process = c.spawn("containerd", "env", "PATH="+c.bin+":"+os.Getenv("PATH"), filepath.Join(c.bin, "containerd"), "-c", c.path("config.toml"))
}

// connect waits for CRI to answer.
func (c *containerd) connect() {
	c.t.Helper()
	conn, err := grpc.NewClient("unix://"+c.path("containerd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	c.pods = cri.NewRuntimeServiceClient(conn)
	c.eventually("containerd's CRI", func() error {
		s, err := c.pods.Status(c.t.Context(), &cri.StatusRequest{})
		if err != nil {
			return err
		}
		for _, condition := range s.GetStatus().GetConditions() {
			// 2.x also has conditions about its configuration.
			if !condition.GetStatus() && (condition.GetType() == cri.RuntimeReady || condition.GetType() == cri.NetworkReady) {
				return fmt.Errorf("%s: %s", condition.GetType(), condition.GetMessage())
			}
		}
		return nil
	})
}

func (c *containerd) ctr(args ...string) string {
	c.t.Helper()
	return c.run(append([]string{"ctr", "--address", c.path("containerd.sock")}, args...)...)
}

func (c *containerd) load(image string) {
	c.t.Helper()
	c.ctr("-n", "k8s.io", "images", "import", image)
}

// pod is a pod's configuration; attempt tells one sandbox of it from the next.
func (c *containerd) pod(name string, attempt uint32, labels map[string]string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: "uid-of-" + name, Attempt: attempt},
		Hostname:     name,
		LogDirectory: c.path("logs"),
		Labels:       labels,
		Annotations:  map[string]string{"note": "not a label"},
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: "/" + c.cgroup()},
	}
}

func (c *containerd) tryRun(pod *cri.PodSandboxConfig) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	r, err := c.pods.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	return r.GetPodSandboxId(), err
}

func (c *containerd) runPod(pod *cri.PodSandboxConfig) string {
	c.t.Helper()
	began := time.Now()
	id, err := c.tryRun(pod)
	if err != nil {
		c.t.Fatalf("run pod %s: %v\n%s", pod.GetMetadata().GetName(), err, c.logs())
	}
	c.t.Logf("run pod %s: %v", pod.GetMetadata().GetName(), time.Since(began))
	return id
}

func (c *containerd) stopPod(id string) {
	c.t.Helper()
	if _, err := c.pods.StopPodSandbox(c.t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		c.t.Fatalf("stop pod: %v\n%s", err, c.logs())
	}
}

func (c *containerd) removePod(id string) {
	c.t.Helper()
	if _, err := c.pods.RemovePodSandbox(c.t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		c.t.Fatalf("remove pod: %v\n%s", err, c.logs())
	}
}
