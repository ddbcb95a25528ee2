package server

import (
	"context"
	"encoding/json"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// Backend is what the server needs of the daemon: the methods of [api.Client], seen from the other
// end of the socket. All are called concurrently.
//
// An *[api.Error] goes to the caller as it is; any other error becomes api.Internal. ctx ends with
// the caller's connection.
//
// FollowFlows and FollowAlerts send what is past, then each item as it happens, and return when
// ctx ends. send never blocks: it may be called under a lock. It fails when this reader is too
// slow or gone; ctx ends then too, so a backend may ignore the error.
type Backend interface {
	Status(ctx context.Context) (api.Status, error)
	Workloads(ctx context.Context) ([]api.Workload, error)
	Rules(ctx context.Context, workload string, guard bool) (string, error)
	Flows(ctx context.Context, q api.FlowQuery) ([]api.Flow, error)
	FollowFlows(ctx context.Context, q api.FlowQuery, send func(api.Flow) error) error
	Names(ctx context.Context) ([]api.Name, error)
	Graph(ctx context.Context) (api.Graph, error)
	Policies(ctx context.Context) ([]api.Policy, error)
	Apply(ctx context.Context, r api.ApplyRequest) (api.ApplyResult, error)
	Preview(ctx context.Context, r api.ApplyRequest) (api.Preview, error)
	History(ctx context.Context, limit int) ([]api.Generation, error)
	Generation(ctx context.Context, n uint64) (api.Generation, error)
	Confirm(ctx context.Context, r api.ConfirmRequest) (api.Pending, error)
	DeletePolicy(ctx context.Context, kind, namespace, name string) error
	Generate(ctx context.Context, namespace, service, format string) (string, error)
	Modes(ctx context.Context) ([]api.ServiceMode, error)
	SetMode(ctx context.Context, m api.ServiceMode) (api.ServiceMode, error)
	Alerts(ctx context.Context, kind string, limit int) ([]json.RawMessage, error)
	FollowAlerts(ctx context.Context, kind string, limit int, send func(json.RawMessage) error) error
	Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error)
	Trace(ctx context.Context, r api.TraceRequest) (api.Trace, error)
	ClusterStatus(ctx context.Context) (api.ClusterStatus, error)
	ClusterForce(ctx context.Context) (api.ClusterForce, error)
	ClusterForget(ctx context.Context, r api.ClusterForget) (api.ClusterForget, error)
	ClusterLeave(ctx context.Context, r api.ClusterLeave) (api.ClusterLeave, error)
	ClusterKeys(ctx context.Context, o api.KeyOrder) (api.KeyReport, error)
	CNI(ctx context.Context, r api.CNIRequest) error
}

// The client is the server's mirror: one method per path, same arguments.
var _ Backend = (*api.Client)(nil)
