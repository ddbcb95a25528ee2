package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// files is a daemon's knowledge as files of a script: NAME.json per answer, NAME.txt for text. A
// file NAME.error.json is the error to answer with. It decides nothing of itself.
type files struct {
	dir string
	log string
	mu  sync.Mutex
}

// answer reads the file of that name into a value; without a file the answer is empty.
func answer[T any](b *files, name string) (v T, err error) {
	var refusal api.Error
	if b.read(name+".error", &refusal) == nil {
		refusal.Status = refusal.HTTPStatus()
		return v, &refusal
	}
	if err := b.read(name, &v); err != nil && !errors.Is(err, os.ErrNotExist) {
		return v, err
	}
	return v, nil
}

func (b *files) read(name string, v any) error {
	data, err := os.ReadFile(filepath.Join(b.dir, name+".json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

func (b *files) text(name string) (string, error) {
	if _, err := answer[struct{}](b, name); err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(b.dir, name+".txt"))
	return string(data), err
}

// note writes down what was asked.
func (b *files) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := os.OpenFile(b.log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintf(f, format+"\n", args...)
}

func (b *files) Status(context.Context) (api.Status, error) { return answer[api.Status](b, "status") }

func (b *files) Workloads(context.Context) ([]api.Workload, error) {
	return answer[[]api.Workload](b, "workloads")
}

func (b *files) Names(context.Context) ([]api.Name, error) {
	return answer[[]api.Name](b, "names")
}

func (b *files) Rules(_ context.Context, workload string, guard bool) (string, error) {
	b.note("rules %s guard=%t", workload, guard)
	return b.text("rules")
}

func (b *files) Flows(_ context.Context, q api.FlowQuery) ([]api.Flow, error) {
	b.note("flows service=%s verdict=%s limit=%d", q.Service, q.Verdict, q.Limit)
	return answer[[]api.Flow](b, "flows")
}

func (b *files) FollowFlows(ctx context.Context, q api.FlowQuery, send func(api.Flow) error) error {
	all, err := b.Flows(ctx, q)
	for _, f := range all {
		err = errors.Join(err, send(f))
	}
	return errors.Join(err, api.Errorf(api.Stopping, "the daemon stops"))
}

func (b *files) Graph(context.Context) (api.Graph, error) { return answer[api.Graph](b, "graph") }

func (b *files) Policies(context.Context) ([]api.Policy, error) {
	return answer[[]api.Policy](b, "policies")
}

func (b *files) Apply(_ context.Context, r api.ApplyRequest) (api.ApplyResult, error) {
	b.note("apply %s", request(r))
	return answer[api.ApplyResult](b, "apply")
}

func (b *files) Preview(_ context.Context, r api.ApplyRequest) (api.Preview, error) {
	b.note("preview %s", request(r))
	return answer[api.Preview](b, "preview")
}

// request is what was asked for, without what was not.
func request(r api.ApplyRequest) string {
	var out []string
	say := func(key, value string) {
		if value != "" && value != "false" {
			out = append(out, key+"="+value)
		}
	}
	say("do", r.Do)
	var names []string
	for _, f := range r.Files {
		names = append(names, fmt.Sprintf("%s:%d", filepath.Base(f.Name), len(f.Data)))
	}
	out = append(out, fmt.Sprintf("files=%s mode=%s prune=%t services=%s", strings.Join(names, ","), r.Mode, r.Prune, strings.Join(r.Services, ",")))
	for _, n := range r.Names {
		say("name", n.Kind+"/"+n.Namespace+"/"+n.Name)
	}
	say("shadow", fmt.Sprint(r.Shadow))
	if r.After > 0 {
		say("after", fmt.Sprint(r.After))
	}
	say("now", fmt.Sprint(r.Now))
	if r.Generation != nil {
		say("generation", fmt.Sprint(*r.Generation))
	}
	say("keep-files", fmt.Sprint(r.KeepFiles))
	say("within", r.ConfirmWithin)
	say("wait", r.Wait)
	say("message", r.Message)
	return strings.Join(out, " ")
}

func (b *files) History(_ context.Context, limit int) ([]api.Generation, error) {
	b.note("history limit=%d", limit)
	return answer[[]api.Generation](b, "history")
}

func (b *files) Generation(_ context.Context, n uint64) (api.Generation, error) {
	b.note("generation %d", n)
	return answer[api.Generation](b, "generation")
}

func (b *files) Confirm(_ context.Context, r api.ConfirmRequest) (api.Pending, error) {
	b.note("confirm %d", r.Generation)
	return answer[api.Pending](b, "confirm")
}

func (b *files) DeletePolicy(_ context.Context, kind, namespace, name string) error {
	b.note("delete %s %s/%s", kind, namespace, name)
	_, err := answer[struct{}](b, "delete")
	return err
}

func (b *files) Generate(_ context.Context, namespace, service, format string) (string, error) {
	b.note("generate namespace=%s service=%s format=%s", namespace, service, format)
	return b.text("generate")
}

func (b *files) Modes(context.Context) ([]api.ServiceMode, error) {
	return answer[[]api.ServiceMode](b, "modes")
}

func (b *files) SetMode(_ context.Context, m api.ServiceMode) (api.ServiceMode, error) {
	b.note("mode %s %s", m.Service, m.Mode)
	return answer[api.ServiceMode](b, "setmode")
}

func (b *files) Alerts(_ context.Context, kind string, limit int) ([]json.RawMessage, error) {
	b.note("alerts kind=%s limit=%d", kind, limit)
	return answer[[]json.RawMessage](b, "alerts")
}

func (b *files) FollowAlerts(ctx context.Context, kind string, limit int, send func(json.RawMessage) error) error {
	all, err := b.Alerts(ctx, kind, limit)
	for _, a := range all {
		err = errors.Join(err, send(a))
	}
	return errors.Join(err, api.Errorf(api.Stopping, "the daemon stops"))
}

func (b *files) Explain(_ context.Context, r api.ExplainRequest) (api.Explanation, error) {
	b.note("explain %s %s %s/%d%s", r.Client, r.Server, r.Protocol, r.Port, r.PortName)
	return answer[api.Explanation](b, "explain")
}

func (b *files) Trace(_ context.Context, r api.TraceRequest) (api.Trace, error) {
	b.note("trace %s %s %s/%d%s", r.Client, r.Server, r.Protocol, r.Port, r.PortName)
	return answer[api.Trace](b, "trace")
}

func (b *files) ClusterStatus(context.Context) (api.ClusterStatus, error) {
	return answer[api.ClusterStatus](b, "cluster")
}

func (b *files) ClusterKeys(_ context.Context, o api.KeyOrder) (api.KeyReport, error) {
	b.note("keys %s key=%s fingerprint=%s", o.Do, o.Key, o.Fingerprint)
	return answer[api.KeyReport](b, "keys")
}

func (b *files) ClusterForce(context.Context) (api.ClusterForce, error) {
	if b.read("force", &api.ClusterForce{}) != nil {
		return api.ClusterForce{}, api.Errorf(api.NotFound, "this node is in no cluster; set cluster in its configuration")
	}
	return answer[api.ClusterForce](b, "force")
}

func (b *files) ClusterForget(_ context.Context, r api.ClusterForget) (api.ClusterForget, error) {
	b.note("forget %s back=%t", r.Node, r.Back)
	return answer[api.ClusterForget](b, "forget")
}

func (b *files) ClusterLeave(_ context.Context, r api.ClusterLeave) (api.ClusterLeave, error) {
	b.note("leave stay=%t", r.Stay)
	return answer[api.ClusterLeave](b, "leave")
}

func (b *files) CNI(context.Context, api.CNIRequest) error {
	return api.Errorf(api.BadRequest, "no plugin in this test")
}
