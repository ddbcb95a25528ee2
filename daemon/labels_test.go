package daemon

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// events is a socket that answers as Podman's event log does: every container was created with
// app=runtime. The first failures questions are refused. Real runtimes are in test/runtime.
type events struct {
	mu       sync.Mutex
	failures int
	asked    []string
}

func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, rest, _ := strings.Cut(r.URL.Query().Get("filters"), `"container":["`)
	id, _, _ := strings.Cut(rest, `"`)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, id)
	if e.failures > 0 {
		e.failures--
		http.Error(w, "busy", http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, `{"Type":"container","Action":"create","Actor":{"ID":%q,"Attributes":{"app":"runtime","name":"of-podman"}}}`, id)
}

func (e *events) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.asked)
}

func (e *events) listen(n *node) string {
	n.t.Helper()
	socket := filepath.Join(n.dir, "podman.sock")
	l, err := net.Listen("unix", socket)
	n.must(err)
	s := &http.Server{Handler: e}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	n.t.Cleanup(func() { s.Close(); <-done })
	return socket
}

func (p *process) workload(id string) (api.Workload, error) {
	list, err := p.client.Workloads(context.Background())
	if err != nil {
		return api.Workload{}, err
	}
	for _, w := range list {
		if w.ID == id {
			return w, nil
		}
	}
	return api.Workload{}, fmt.Errorf("%s: %w", id, errNot)
}

func (p *process) wantLabels(id, name, app string) {
	p.n.t.Helper()
	eventually(p.n.t, 5*time.Second, id+" as "+name+" with app="+app, func() error {
		w, err := p.workload(id)
		if err == nil && (w.Name != name || !maps.Equal(w.Labels, map[string]string{"app": app}) || w.Service != w.Namespace+"/"+app) {
			err = fmt.Errorf("%+v", w)
		}
		return err
	})
}

// TestRuntimeLabels: labels of the request go before those of the inventory, and these before what
// the runtime says, which is asked once a container, only where it counts, and never again by the
// daemon's next life.
func TestRuntimeLabels(t *testing.T) {
	n := newNode(t)
	e := &events{}
	config := "podman: " + e.listen(n)
	list := func(names ...string) {
		var docs []string
		for _, name := range names {
			docs = append(docs, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, labels: {app: inventory}}\nspec: {nodeName: %s}\n", name, n.name))
		}
		n.must(os.WriteFile(filepath.Join(n.dir, "inventory", "pods.yaml"), []byte(strings.Join(docs, "---\n")), 0o600))
	}
	list("listed-1", "told-1")
	p := n.start(config)

	told, listed, other, nameless := n.pod("told-1"), n.pod("listed-1"), n.pod("other-1"), n.pod("nameless-1")
	p.add(told)
	for _, x := range []*pod{listed, other, other, nameless} { // the second ADD of one changes nothing
		req := x.request("ADD")
		req.Labels = nil
		if x == nameless {
			req.Args = nil
		}
		p.cni(req)
	}
	p.wantLabels(told.id, "told-1", "told")
	p.wantLabels(listed.id, "listed-1", "inventory")
	p.wantLabels(other.id, "other-1", "runtime") // CNI_ARGS' name goes before Podman's
	p.wantLabels(nameless.id, "of-podman", "runtime")
	if e.count() != 2 {
		t.Errorf("the runtime was asked for %v, want other and nameless once", e.asked)
	}
	list("listed-1", "told-1", "other-1")
	p.wantLabels(other.id, "other-1", "inventory")
	list("listed-1", "told-1")
	p.wantLabels(other.id, "other-1", "runtime")

	p.kill()
	p = n.start(config)
	p.wantLabels(other.id, "other-1", "runtime")
	p.wantLabels(nameless.id, "of-podman", "runtime")
	if e.count() != 2 {
		t.Errorf("the next daemon asked again: %v", e.asked)
	}
}

// TestLateLabels: a runtime that could not answer during ADD is asked again, and the container that
// ran without labels meanwhile gets its service and its policies.
func TestLateLabels(t *testing.T) {
	n := newNode(t)
	e := &events{failures: 2}
	p := n.start("podman: " + e.listen(n))
	x := n.pod("late-1")
	req := x.request("ADD")
	req.Labels = nil
	p.cni(req)
	w, err := p.workload(x.id)
	if err != nil || len(w.Labels) > 0 || w.Service != "shop/late-1" && w.Service != "shop/late" {
		t.Errorf("before the runtime answers: %+v, %v", w, err)
	}
	p.wantLabels(x.id, "late-1", "runtime")
	if e.count() != 3 {
		t.Errorf("asked %d times, want 3", e.count())
	}
}
