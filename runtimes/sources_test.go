package runtimes

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	namespaces "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxes "github.com/containerd/containerd/api/services/sandbox/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// The runtimes themselves are in test/runtime. Here are sockets that say what they said there, and
// what they never would.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Records as containerd 1.6.20 and 2.4.2 had them during an ADD, and Podman 4.3.1's events.
var (
	record16 = &containers.Container{
		ID: "p16",
		Labels: map[string]string{
			"app": "bad", "io.cri-containerd.kind": "sandbox", "io.kubernetes.pod.name": "bad-1",
			"io.kubernetes.pod.namespace": "shop", "of": "image",
		},
		Extensions: map[string]*anypb.Any{containerExtension: {
			TypeUrl: "github.com/containerd/cri/pkg/store/sandbox/Metadata", Value: []byte(podRecord),
		}},
	}
	record2 = &types.Sandbox{
		SandboxID: "p2",
		Labels:    map[string]string{"io.cri-containerd.kind": "sandbox", "of": "image"},
		Extensions: map[string]*anypb.Any{sandboxExtension: {
			TypeUrl: "github.com/containerd/cri/pkg/store/sandbox/Metadata", Value: []byte(podRecord),
		}},
	}
	nerdctl = &containers.Container{
		ID: "n1",
		Labels: map[string]string{
			"app": "cart", "nerdctl/name": "cart-1", "nerdctl/namespace": "default", "nerdctl/state-dir": "/var/lib/nerdctl/x",
			"io.containerd.image.config.stop-signal": "SIGTERM", "containerd.io/restart.policy": "always",
		},
	}
)

const (
	podRecord = `{"Version":"v1","Metadata":{"ID":"p","Name":"bad-1_shop_uid-of-bad-1_0","Config":{` +
		`"metadata":{"name":"bad-1","uid":"uid-of-bad-1","namespace":"shop"},"hostname":"bad-1","log_directory":"/logs",` +
		`"labels":{"app":"bad","io.kubernetes.pod.name":"bad-1","io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"uid-of-bad-1","tier":"back"},` +
		`"annotations":{"note":"not a label"},"linux":{"cgroup_parent":"/x"}},"NetNSPath":"/var/run/netns/cni-1","IP":"","AdditionalIPs":null,"RuntimeHandler":"","CNIResult":null,"ProcessLabel":""}}`
	webEvent = `{"status":"create","id":"web1","from":"localhost/bb:1","Type":"container","Action":"create","Actor":{"ID":"web1",` +
		`"Attributes":{"app":"web","containerExitCode":"0","image":"localhost/bb:1","name":"web","podId":"","tier":"front"}},"scope":"local","time":1795609540,"timeNano":1795609540424257569}`
	podEvent  = `{"status":"create","id":"e20d","Type":"pod","Action":"create","Actor":{"ID":"e20d","Attributes":{"containerExitCode":"0","image":"","name":"p","podId":""}},"scope":"local","time":1795609542,"timeNano":1795609542152512209}`
	bareEvent = `{"status":"create","id":"bare1","Type":"container","Action":"create","Actor":{"ID":"bare1","Attributes":{"containerExitCode":"0","image":"localhost/bb:1","name":"bare","podId":""}}}`
)

// fakeContainerd has the records, in namespaces.
type fakeContainerd struct {
	namespaces.UnimplementedNamespacesServer
	store bool // 2.x
	fail  error
}

func namespaceOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get("containerd-namespace"), ",")
}

func (f *fakeContainerd) List(context.Context, *namespaces.ListNamespacesRequest) (*namespaces.ListNamespacesResponse, error) {
	return &namespaces.ListNamespacesResponse{Namespaces: []*namespaces.Namespace{{Name: "default"}, {Name: "k8s.io"}, {Name: "moby"}}}, f.fail
}

// containersOf and storeOf are the two services whose methods have one name.
type containersOf struct {
	containers.UnimplementedContainersServer
	f *fakeContainerd
}

type storeOf struct {
	sandboxes.UnimplementedStoreServer
	f *fakeContainerd
}

func (s containersOf) Get(ctx context.Context, r *containers.GetContainerRequest) (*containers.GetContainerResponse, error) {
	switch ns := namespaceOf(ctx); {
	case s.f.fail != nil:
		return nil, s.f.fail
	case ns == "k8s.io" && r.GetID() == "p16":
		return &containers.GetContainerResponse{Container: record16}, nil
	case ns == "k8s.io" && r.GetID() == "broken":
		return &containers.GetContainerResponse{Container: &containers.Container{
			Extensions: map[string]*anypb.Any{containerExtension: {TypeUrl: "x", Value: []byte("{")}}}}, nil
	case ns == "default" && r.GetID() == "n1":
		return &containers.GetContainerResponse{Container: nerdctl}, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %q in namespace %q: not found", r.GetID(), namespaceOf(ctx))
}

func (s storeOf) Get(ctx context.Context, r *sandboxes.StoreGetRequest) (*sandboxes.StoreGetResponse, error) {
	if namespaceOf(ctx) == "k8s.io" && r.GetSandboxID() == "p2" {
		return &sandboxes.StoreGetResponse{Sandbox: record2}, nil
	}
	return nil, status.Errorf(codes.NotFound, "sandbox %q: not found", r.GetSandboxID())
}

func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bhrun") // short, for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l, l.Addr().String()
}

func (f *fakeContainerd) serve(t *testing.T) string {
	t.Helper()
	l, socket := listen(t)
	s := grpc.NewServer()
	containers.RegisterContainersServer(s, containersOf{f: f})
	namespaces.RegisterNamespacesServer(s, f)
	if f.store {
		sandboxes.RegisterStoreServer(s, storeOf{f: f})
	}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return socket
}

// servePodman answers as Podman does: the filter takes names and beginnings of ids.
func servePodman(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	l, socket := listen(t)
	s := &http.Server{Handler: handler}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return socket
}

func events(w http.ResponseWriter, r *http.Request) {
	want := map[string]string{"web1": webEvent, "web": webEvent, "w": webEvent, "e20d": podEvent, "bare1": bareEvent}
	if r.URL.Path != "/v4.0.0/libpod/events" || r.URL.Query().Get("stream") != "false" {
		http.Error(w, "not the endpoint that does not lock", http.StatusInternalServerError)
		return
	}
	for id, line := range want {
		if strings.Contains(r.URL.Query().Get("filters"), `"container":["`+id+`"]`) {
			_, _ = w.Write([]byte(line + "\n"))
		}
	}
}

func TestLabels(t *testing.T) {
	pod := Found{Labels: map[string]string{"app": "bad", "tier": "back"}, Namespace: "shop", Name: "bad-1", Source: "containerd"}
	for _, c := range []struct {
		name, id string
		store    bool
		want     Found
	}{
		{"a pod of 1.6: its configuration alone, without the image's labels", "p16", false, pod},
		{"a pod of 1.x with a store of sandboxes", "p16", true, pod},
		{"a pod of 2.x", "p2", true, pod},
		{"nerdctl, by id", "n1", false, Found{Labels: map[string]string{"app": "cart"}, Name: "cart-1", Source: "containerd"}},
		{"nerdctl, as it tells CNI", "default-n1", true, Found{Labels: map[string]string{"app": "cart"}, Name: "cart-1", Source: "containerd"}},
		{"another namespace's prefix", "moby-n1", true, Found{}},
		{"a namespace and no id", "default-", true, Found{}},
		{"Podman", "web1", true, Found{Labels: map[string]string{"app": "web", "tier": "front"}, Name: "web", Source: "podman"}},
		{"no label at all is an answer", "bare1", true, Found{Name: "bare", Source: "podman"}},
		{"a container's name is no id", "web", true, Found{}},
		{"nor is the beginning of one", "w", true, Found{}},
		{"nor is a pod a container", "e20d", true, Found{}},
		{"nobody's", "cnitool-5d0c", false, Found{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(Config{Containerd: (&fakeContainerd{store: c.store}).serve(t), Podman: servePodman(t, events)})
			got, err := s.Labels(t.Context(), c.id)
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestErrors: what a runtime answers wrongly is told with the runtime's name and does not keep the
// other one from knowing.
func TestErrors(t *testing.T) {
	failing := (&fakeContainerd{fail: status.Error(codes.Unavailable, "shutting down")}).serve(t)
	broken := (&fakeContainerd{}).serve(t)
	refusing := servePodman(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no log", http.StatusInternalServerError) })
	garbage := servePodman(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"Type":`)) })
	for _, c := range []struct {
		name, id string
		cfg      Config
		want     string
	}{
		{"containerd fails", "web2", Config{Containerd: failing}, "ask containerd for container web2: container: rpc error: code = Unavailable desc = shutting down"},
		{"a record that is none", "broken", Config{Containerd: broken}, `ask containerd for container broken: the pod's record of type "x": unexpected end of JSON input`},
		{"Podman refuses", "web2", Config{Podman: refusing}, "ask podman for container web2: events: 500 Internal Server Error: no log"},
		{"Podman breaks off", "web2", Config{Podman: garbage}, "ask podman for container web2: events: unexpected EOF"},
		{"both", "web2", Config{Containerd: failing, Podman: refusing}, "both"},
		{"no id", "", Config{Podman: refusing}, "container id of 0 bytes: want 1 to 256"},
		{"a long id", strings.Repeat("x", 300), Config{Podman: refusing}, "container id of 300 bytes: want 1 to 256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := New(c.cfg).Labels(t.Context(), c.id)
			if got.Source != "" || err == nil || err.Error() != c.want && c.want != "both" {
				t.Errorf("%+v, %v; want %s", got, err, c.want)
			}
			if c.want == "both" && (!strings.Contains(err.Error(), "ask containerd") || !strings.Contains(err.Error(), "ask podman")) {
				t.Error(err)
			}
		})
	}
	got, err := New(Config{Containerd: failing, Podman: servePodman(t, events)}).Labels(t.Context(), "web1")
	if err != nil || got.Source != "podman" {
		t.Errorf("one fails, the other knows: %+v, %v", got, err)
	}
}

// TestNotThere: no socket, and a socket that nobody listens on, are runtimes that are not in use.
func TestNotThere(t *testing.T) {
	dir := t.TempDir()
	l, dead := listen(t)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for name, cfg := range map[string]Config{
		"none": {}, "no file": {Containerd: filepath.Join(dir, "c"), Podman: filepath.Join(dir, "p")}, "refused": {Containerd: dead, Podman: dead},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := New(cfg).Labels(t.Context(), "web1"); err != nil || got.Source != "" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	if _, known := New(Config{Containerd: filepath.Join(dir, "c")}).Await(t.Context(), "web1"); known {
		t.Error("a runtime that is not there knew")
	}
}

// TestDeadline: a runtime that hangs, as it does when asked for what it has locked, costs 2 s and no
// more, and nothing when the other one knows.
func TestDeadline(t *testing.T) {
	l, hanging := listen(t) // accepts nobody
	defer l.Close()
	began := time.Now()
	got, err := New(Config{Containerd: hanging, Podman: servePodman(t, events)}).Labels(t.Context(), "web1")
	if err != nil || got.Source != "podman" || time.Since(began) > answerWait/2 {
		t.Errorf("%+v, %v after %v", got, err, time.Since(began))
	}
	began = time.Now()
	got, err = New(Config{Containerd: hanging, Podman: hanging}).Labels(t.Context(), "web1")
	if took := time.Since(began); got.Source != "" || err == nil || took < answerWait || took > answerWait*2 {
		t.Errorf("%+v, %v after %v", got, err, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(Config{Podman: hanging}).Labels(ctx, "web1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestAwait: the third try finds it; a cancelled one ends at once.
func TestAwait(t *testing.T) {
	defer func(before []time.Duration) { latePauses = before }(latePauses)
	latePauses = []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}
	tries := 0
	socket := servePodman(t, func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 3 {
			events(w, r)
		}
	})
	s := New(Config{Podman: socket})
	if got, known := s.Await(t.Context(), "web1"); !known || got.Name != "web" || tries != 3 {
		t.Errorf("%+v, %v after %d tries", got, known, tries)
	}
	if _, known := s.Await(t.Context(), "nobody"); known || tries != 6 {
		t.Errorf("nobody's container is known after %d tries", tries)
	}
	latePauses = []time.Duration{time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, known := s.Await(ctx, "web1"); known {
		t.Error("known without asking")
	}
}
