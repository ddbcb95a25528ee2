package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/api/server"
)

// TestEveryPath calls each method of the client once, over a real socket.
func TestEveryPath(t *testing.T) {
	b := newBackend()
	c, _ := start(t, b, server.Config{})
	ctx := context.Background()
	type call func() (any, error)
	for name, tc := range map[string]struct {
		call call
		want string
	}{
		"status":     {func() (any, error) { v, err := c.Status(ctx); return v.Node, err }, `"node-1"`},
		"workloads":  {func() (any, error) { v, err := c.Workloads(ctx); return v[0].ID, err }, `"c1"`},
		"rules":      {func() (any, error) { return c.Rules(ctx, "shop/cart-0", true) }, `"# shop/cart-0 guard=true\n"`},
		"no rules":   {func() (any, error) { return c.Rules(ctx, "shop/none", false) }, `not-found 404: workload shop/none: not known here`},
		"rules of ?": {func() (any, error) { return c.Rules(ctx, "", false) }, `bad-request 400: workload: missing; want an id or namespace/name`},
		"names":      {func() (any, error) { v, err := c.Names(ctx); return v[0].Name, err }, `"api.example.com"`},
		"flows": {func() (any, error) {
			v, err := c.Flows(ctx, api.FlowQuery{Service: "shop/a", Verdict: "deny", Limit: 9})
			return []any{v[0].Client, v[0].Verdict, v[0].Count}, err
		}, `["shop/a","deny",9]`},
		"flows of a bad verdict": {func() (any, error) { return c.Flows(ctx, api.FlowQuery{Verdict: "no"}) },
			`bad-request 400: verdict "no": want one of [allow alert deny]`},
		"flows of a bad limit": {func() (any, error) { return c.Flows(ctx, api.FlowQuery{Limit: -1}) },
			`bad-request 400: limit "-1": want a number, 0 or more`},
		"graph":    {func() (any, error) { v, err := c.Graph(ctx); return v.Edges[0].Server, err }, `"shop/b"`},
		"policies": {func() (any, error) { v, err := c.Policies(ctx); return v[0].Name, err }, `"cart"`},
		"apply": {func() (any, error) {
			v, err := c.Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "a.yaml"}}})
			return v.Created, err
		}, `["a.yaml"]`},
		"apply nothing": {func() (any, error) { return c.Apply(ctx, api.ApplyRequest{}) }, `bad-request 400: apply: no files`},
		"preview": {func() (any, error) {
			v, err := c.Preview(ctx, api.ApplyRequest{Services: []string{"*"}, Mode: "enforce"})
			return v.Changed, err
		}, `["*","enforce"]`},
		"history": {func() (any, error) { return c.History(ctx, 9) }, `[{"number":3,"time":"0001-01-01T00:00:00Z","who":"","cause":"","created":0,"changed":0,"removed":0,"modes":0},{"number":9,"time":"0001-01-01T00:00:00Z","who":"","cause":"","created":0,"changed":0,"removed":0,"modes":0}]`},
		"generation": {func() (any, error) {
			g, err := c.Generation(ctx, 7)
			return []any{g.Number, *g.UID == uint32(os.Geteuid()), g.PID == int32(os.Getpid())}, err
		}, `[7,true,true]`},
		"confirm": {func() (any, error) {
			p, err := c.Confirm(ctx, api.ConfirmRequest{Generation: 7})
			return p.Generation, err
		}, `7`},
		"delete":         {func() (any, error) { return nil, c.DeletePolicy(ctx, "Policy", "shop", "cart") }, `null`},
		"delete nothing": {func() (any, error) { return nil, c.DeletePolicy(ctx, "Policy", "shop", "x") }, `not-found 404: Policy shop/x: no such policy`},
		"generate":       {func() (any, error) { return c.Generate(ctx, "shop", "cart", "kubernetes") }, `"# shop cart kubernetes\n"`},
		"generate xml":   {func() (any, error) { return c.Generate(ctx, "", "", "xml") }, `bad-request 400: format "xml": want one of [native kubernetes]`},
		"modes":          {func() (any, error) { v, err := c.Modes(ctx); return v[0].Mode, err }, `"learn"`},
		"set mode": {func() (any, error) {
			v, err := c.SetMode(ctx, api.ServiceMode{Service: "*", Mode: "alert"})
			return v.Mode, err
		}, `"alert"`},
		"full disk": {func() (any, error) { return c.SetMode(ctx, api.ServiceMode{Mode: "boom"}) }, `internal 500: write the store: no space left on device`},
		"alerts":    {func() (any, error) { return c.Alerts(ctx, "denied", 3) }, `[{"kind":"denied","count":3}]`},
		"explain": {func() (any, error) {
			v, err := c.Explain(ctx, api.ExplainRequest{Client: "shop/a", Server: "shop/b"})
			return v.Verdict, err
		}, `"deny"`},
		"trace": {func() (any, error) {
			v, err := c.Trace(ctx, api.TraceRequest{Client: "shop/a", Server: "shop/b"})
			return v.Outcome, err
		}, `"drop"`},
		"cni": {func() (any, error) {
			return nil, c.CNI(ctx, api.CNIRequest{Command: "DEL", ContainerID: "c1"})
		}, `null`},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := tc.call()
			got := describe(err)
			if err == nil {
				j, _ := json.Marshal(v)
				got = string(j)
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	if len(b.cni) != 1 || b.cni[0].ContainerID != "c1" {
		t.Errorf("the backend heard %+v", b.cni)
	}
}

func describe(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return strings.TrimSpace(e.Code + " " + http.StatusText(e.Status)[:0] + itoa(e.Status) + ": " + e.Error())
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// raw sends a request as somebody would who does not use our client.
func raw(t *testing.T, c *api.Client, method, path, body string) (int, api.Error) {
	t.Helper()
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", c.Socket())
	}}}
	req, err := http.NewRequest(method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var e api.Error
	b, _ := io.ReadAll(resp.Body)
	json.Unmarshal(b, &e)
	return resp.StatusCode, e
}

func TestBadRequests(t *testing.T) {
	b := newBackend()
	c, _ := start(t, b, server.Config{MaxBody: 100, MaxCNIBody: 50})
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"unknown field": {"POST", "/v1/policies", `{"fiels":[]}`, 400,
			`POST /v1/policies: body: json: unknown field "fiels"`},
		"not JSON":              {"POST", "/v1/policies", `kind: Policy`, 400, `POST /v1/policies: body: invalid character 'k' looking for beginning of value`},
		"empty":                 {"POST", "/v1/cni", ``, 400, `POST /v1/cni: body: EOF`},
		"two values":            {"POST", "/v1/explain", `{} {}`, 400, `POST /v1/explain: body: more than one JSON value`},
		"wrong type":            {"POST", "/v1/explain", `{"port":70000}`, 400, `POST /v1/explain: body: json: cannot unmarshal number 70000 into Go struct field ExplainRequest.port of type uint16`},
		"too large":             {"POST", "/v1/policies", `{"mode":"` + strings.Repeat("x", 100) + `"}`, 413, `POST /v1/policies: body over 100 bytes`},
		"CNI's limit":           {"POST", "/v1/cni", `{"netns":"` + strings.Repeat("x", 50) + `"}`, 413, `POST /v1/cni: body over 50 bytes`},
		"a tail over the limit": {"POST", "/v1/cni", `{}` + strings.Repeat(" ", 60), 413, `POST /v1/cni: body over 50 bytes`},
		"path":                  {"GET", "/v2/status", ``, 404, `GET /v2/status: no such path or method`},
		"method":                {"PATCH", "/v1/status", ``, 404, `PATCH /v1/status: no such path or method`},
		"parameter":             {"GET", "/v1/status?x=1", ``, 400, `GET /v1/status: unknown parameter "x"`},
		"twice":                 {"GET", "/v1/flows?limit=1&limit=2", ``, 400, `limit: given 2 times`},
		"query":                 {"GET", "/v1/flows?limit=%zz", ``, 400, `query: invalid URL escape "%zz"`},
		"flag":                  {"GET", "/v1/flows?follow=yes", ``, 400, `follow "yes": want one of [true false]`},
		"no name":               {"DELETE", "/v1/policies", ``, 400, `name: missing; want the policy's name`},
	} {
		t.Run(name, func(t *testing.T) {
			status, e := raw(t, c, tc.method, tc.path, tc.body)
			if diff := cmp.Diff([]any{tc.status, tc.want}, []any{status, e.Message}); diff != "" {
				t.Error(diff)
			}
		})
	}
	if len(b.cni) > 0 {
		t.Errorf("the backend heard %+v", b.cni)
	}
}
