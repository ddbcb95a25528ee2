package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/api/server"
)

// backend answers with what it was asked, so that a test sees what arrived.
type backend struct {
	mu       sync.Mutex
	cni      []api.CNIRequest
	flow     chan api.Flow // what FollowFlows sends; closing it ends the stream
	sendErrs chan error    // what send returned when it did not take a flow
}

func newBackend() *backend {
	return &backend{flow: make(chan api.Flow), sendErrs: make(chan error, 1)}
}

func (b *backend) Status(context.Context) (api.Status, error) {
	return api.Status{Node: "node-1"}, nil
}

func (b *backend) Workloads(context.Context) ([]api.Workload, error) {
	return []api.Workload{{ID: "c1", Namespace: "shop", Name: "cart-0"}}, nil
}

func (b *backend) Rules(_ context.Context, workload string, guard bool) (string, error) {
	if workload == "shop/none" {
		return "", api.Errorf(api.NotFound, "workload %s: not known here", workload)
	}
	return fmt.Sprintf("# %s guard=%v\n", workload, guard), nil
}

func (b *backend) Flows(_ context.Context, q api.FlowQuery) ([]api.Flow, error) {
	return []api.Flow{{Client: q.Service, Verdict: q.Verdict, Count: uint64(q.Limit)}}, nil
}

func (b *backend) FollowFlows(ctx context.Context, _ api.FlowQuery, send func(api.Flow) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f, ok := <-b.flow:
			if !ok {
				return nil
			}
			if err := send(f); err != nil {
				b.sendErrs <- err
				return err
			}
		}
	}
}

func (b *backend) Graph(context.Context) (api.Graph, error) {
	return api.Graph{Edges: []api.Edge{{Client: "shop/a", Server: "shop/b", Port: 80}}}, nil
}

func (b *backend) Policies(context.Context) ([]api.Policy, error) {
	return []api.Policy{{Kind: "Policy", Name: "cart"}}, nil
}

func (b *backend) Apply(_ context.Context, r api.ApplyRequest) (api.ApplyResult, error) {
	if len(r.Files) == 0 {
		return api.ApplyResult{}, fmt.Errorf("apply: %w", api.Errorf(api.BadRequest, "no files"))
	}
	return api.ApplyResult{Created: []string{r.Files[0].Name}, Generation: 7}, nil
}

func (b *backend) Preview(_ context.Context, r api.ApplyRequest) (api.Preview, error) {
	return api.Preview{Changed: append(r.Services, r.Mode)}, nil
}

func (b *backend) History(_ context.Context, limit int) ([]api.Generation, error) {
	return []api.Generation{{Number: 3}, {Number: uint64(limit)}}, nil
}

func (b *backend) Generation(ctx context.Context, n uint64) (api.Generation, error) {
	c, _ := server.CallerOf(ctx)
	return api.Generation{Number: n, UID: &c.UID, PID: c.PID}, nil
}

func (b *backend) Confirm(_ context.Context, r api.ConfirmRequest) (api.Pending, error) {
	return api.Pending{Generation: r.Generation}, nil
}

func (b *backend) DeletePolicy(_ context.Context, kind, namespace, name string) error {
	if name != "cart" {
		return api.Errorf(api.NotFound, "%s %s/%s: no such policy", kind, namespace, name)
	}
	return nil
}

func (b *backend) Generate(_ context.Context, namespace, service, format string) (string, error) {
	return fmt.Sprintf("# %s %s %s\n", namespace, service, format), nil
}

func (b *backend) Modes(context.Context) ([]api.ServiceMode, error) {
	return []api.ServiceMode{{Service: "*", Mode: "learn"}}, nil
}

func (b *backend) SetMode(_ context.Context, m api.ServiceMode) (api.ServiceMode, error) {
	if m.Mode == "boom" {
		return m, errors.New("write the store: no space left on device")
	}
	return m, nil
}

func (b *backend) Alerts(_ context.Context, kind string, limit int) ([]json.RawMessage, error) {
	return []json.RawMessage{json.RawMessage(fmt.Sprintf(`{"kind":%q,"count":%d}`, kind, limit))}, nil
}

func (b *backend) FollowAlerts(ctx context.Context, kind string, limit int, send func(json.RawMessage) error) error {
	for i := range limit {
		if err := send(json.RawMessage(fmt.Sprintf("{\"kind\":%q,\n\"count\":%d}", kind, i))); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (b *backend) Explain(_ context.Context, r api.ExplainRequest) (api.Explanation, error) {
	return api.Explanation{Client: r.Client, Server: r.Server, Verdict: "deny"}, nil
}

func (b *backend) Trace(_ context.Context, r api.TraceRequest) (api.Trace, error) {
	return api.Trace{Client: r.Client, Server: r.Server, Outcome: api.FateDrop}, nil
}

func (b *backend) Names(context.Context) ([]api.Name, error) {
	return []api.Name{{Workload: "shop/cart-0", Name: "api.example.com"}}, nil
}

func (b *backend) ClusterStatus(context.Context) (api.ClusterStatus, error) {
	return api.ClusterStatus{Name: "prod"}, nil
}

func (b *backend) ClusterKeys(_ context.Context, o api.KeyOrder) (api.KeyReport, error) {
	return api.KeyReport{Nodes: []api.NodeKeys{{Node: o.Do, Keys: []string{}}}}, nil
}

func (b *backend) ClusterForce(context.Context) (api.ClusterForce, error) {
	return api.ClusterForce{Generation: 3}, nil
}

func (b *backend) ClusterForget(_ context.Context, r api.ClusterForget) (api.ClusterForget, error) {
	return r, nil
}

func (b *backend) ClusterLeave(_ context.Context, r api.ClusterLeave) (api.ClusterLeave, error) {
	return r, nil
}

func (b *backend) CNI(_ context.Context, r api.CNIRequest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cni = append(b.cni, r)
	return nil
}

// start runs a server on a socket of its own until the test ends.
func start(t *testing.T, b server.Backend, cfg server.Config) (*api.Client, *server.Server) {
	t.Helper()
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(t.TempDir(), "api.sock")
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	s, err := server.Open(cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	c := api.NewClient(cfg.Socket)
	t.Cleanup(func() {
		c.Close()
		stop()
		if err := within(t, ended); err != nil {
			t.Errorf("Run: %v", err)
		}
		for _, f := range []string{cfg.Socket, cfg.Socket + ".lock", cfg.Socket + ".new"} {
			if _, err := os.Lstat(f); err == nil {
				t.Errorf("%s is left after the end", f)
			}
		}
	})
	return c, s
}

// within waits for a value that must come soon.
func within[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing within 10 s")
	}
	return v
}

func TestMain(m *testing.M) {
	childMain()
	goleak.VerifyTestMain(m)
}
