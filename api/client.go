package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

const (
	maxAnswer = 256 << 20 // bytes of an answer that the client reads; a graph of 10,000 services is far below
	maxError  = 1 << 20   // bytes of an error's body
)

// Client speaks to a bulkheadd over its unix socket. It is safe for concurrent use and holds idle
// connections until Close.
//
// Every method ends with its context. Errors: *[DialError] when nobody listens, *[Error] for every
// answer that is not 2xx, else the transport's error with the method and the socket before it.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client for the daemon at a socket; empty is [DefaultSocket]. Nothing is dialled
// before the first call.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}}}
}

// Socket is the path that the client dials.
func (c *Client) Socket() string { return c.socket }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status is the daemon at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, PathStatus, nil)
}

// Workloads lists what the daemon knows, local ones and others.
func (c *Client) Workloads(ctx context.Context) ([]Workload, error) {
	return get[[]Workload](ctx, c, PathWorkloads, nil)
}

// Rules is the ruleset of a local workload (id, or namespace/name) in nft syntax with addresses
// named; guard adds the chain on the host's end.
func (c *Client) Rules(ctx context.Context, workload string, guard bool) (string, error) {
	q := url.Values{"workload": {workload}}
	if guard {
		q.Set("guard", "true")
	}
	return c.text(ctx, PathRules, q)
}

// Flows are the flows that the daemon remembers, newest last.
func (c *Client) Flows(ctx context.Context, q FlowQuery) ([]Flow, error) {
	return get[[]Flow](ctx, c, PathFlows, q.values())
}

// FollowFlows calls fn for q.Limit past flows and then for each as it happens, until ctx ends or
// fn returns an error; that error is returned as it is.
func (c *Client) FollowFlows(ctx context.Context, q FlowQuery, fn func(Flow) error) error {
	return follow(ctx, c, PathFlows, q.values(), fn)
}

func (q FlowQuery) values() url.Values {
	return values("service", q.Service, "verdict", q.Verdict, "limit", number(q.Limit))
}

// Graph is the service graph.
func (c *Client) Graph(ctx context.Context) (Graph, error) {
	return get[Graph](ctx, c, PathGraph, nil)
}

// Policies are the policies in force.
func (c *Client) Policies(ctx context.Context) ([]Policy, error) {
	return get[[]Policy](ctx, c, PathPolicies, nil)
}

// Apply carries out a change of policies and modes: all of it, or nothing and an Error, for files with
// file:line:column.
func (c *Client) Apply(ctx context.Context, r ApplyRequest) (ApplyResult, error) {
	return send[ApplyResult](ctx, c, http.MethodPost, PathPolicies, r)
}

// Preview says what Apply would change of what was seen. Nothing is changed.
func (c *Client) Preview(ctx context.Context, r ApplyRequest) (Preview, error) {
	return send[Preview](ctx, c, http.MethodPost, PathPreview, r)
}

// History lists the generations of policies and modes, newest first; limit 0 gives all that are kept.
func (c *Client) History(ctx context.Context, limit int) ([]Generation, error) {
	return get[[]Generation](ctx, c, PathHistory, values("limit", number(limit)))
}

// Generation is one generation with all that it changed.
func (c *Client) Generation(ctx context.Context, n uint64) (Generation, error) {
	list, err := get[[]Generation](ctx, c, PathHistory, url.Values{"generation": {strconv.FormatUint(n, 10)}})
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("generation %d: the daemon answered with %d generations", n, len(list))
	}
	if err != nil {
		return Generation{}, err
	}
	return list[0], nil
}

// Confirm keeps a change that would be undone at its deadline.
func (c *Client) Confirm(ctx context.Context, r ConfirmRequest) (Pending, error) {
	return send[Pending](ctx, c, http.MethodPost, PathConfirm, r)
}

// DeletePolicy removes one policy that came through Apply.
func (c *Client) DeletePolicy(ctx context.Context, kind, namespace, name string) error {
	q := values("kind", kind, "namespace", namespace, "name", name)
	return c.do(ctx, http.MethodDelete, PathPolicies, q, nil, nil)
}

// Generate writes policies from what was seen, as YAML. Empty namespace or service means all;
// format is "native" (also when empty) or "kubernetes".
func (c *Client) Generate(ctx context.Context, namespace, service, format string) (string, error) {
	return c.text(ctx, PathGenerate, values("namespace", namespace, "service", service, "format", format))
}

// Modes lists every service's mode.
func (c *Client) Modes(ctx context.Context) ([]ServiceMode, error) {
	return get[[]ServiceMode](ctx, c, PathModes, nil)
}

// SetMode sets a service's mode, or with Service "*" every service's and the default. It returns
// what is then in force.
func (c *Client) SetMode(ctx context.Context, m ServiceMode) (ServiceMode, error) {
	return send[ServiceMode](ctx, c, http.MethodPut, PathModes, m)
}

// Alerts are the alerts that the daemon remembers, newest last, each the JSON of an alert.Alert.
// They are raw because the CNI plugin links this package and must not link alert. Empty kind means
// all kinds, limit 0 the daemon's default.
func (c *Client) Alerts(ctx context.Context, kind string, limit int) ([]json.RawMessage, error) {
	return get[[]json.RawMessage](ctx, c, PathAlerts, values("kind", kind, "limit", number(limit)))
}

// FollowAlerts calls fn for limit past alerts and then for each as it is sent, as FollowFlows does.
// The bytes are fn's to keep.
func (c *Client) FollowAlerts(ctx context.Context, kind string, limit int, fn func(json.RawMessage) error) error {
	return follow(ctx, c, PathAlerts, values("kind", kind, "limit", number(limit)), fn)
}

// Explain asks for a verdict and its reasons.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (Explanation, error) {
	return send[Explanation](ctx, c, http.MethodPost, PathExplain, r)
}

// CNI tells the daemon of an attachment, or asks about one. It is the plugin's call: the socket
// answers it to root and to the daemon's own user only.
func (c *Client) CNI(ctx context.Context, r CNIRequest) error {
	return c.do(ctx, http.MethodPost, PathCNI, nil, r, nil)
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (answer T, err error) {
	err = c.do(ctx, http.MethodGet, path, q, nil, &answer)
	return answer, err
}

func send[T any](ctx context.Context, c *Client, method, path string, body any) (answer T, err error) {
	err = c.do(ctx, method, path, nil, body, &answer)
	return answer, err
}

// do sends body, if there is one, and decodes the answer, if one is wanted.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body, answer any) error {
	resp, err := c.open(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer); err != nil {
		return c.wrap(method, path, fmt.Errorf("decode the answer: %w", err))
	}
	return nil
}

func (c *Client) text(ctx context.Context, path string, q url.Values) (string, error) {
	resp, err := c.open(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", c.wrap(http.MethodGet, path, err)
	}
	return string(b), nil
}

// open sends a request and returns its answer when that is 2xx; the caller closes the body.
func (c *Client) open(ctx context.Context, method, path string, q url.Values, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, c.wrap(method, path, err)
		}
		r = bytes.NewReader(b)
	}
	u := url.URL{Scheme: "http", Host: "bulkhead", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), r)
	if err != nil {
		return nil, c.wrap(method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if d := dialError(c.socket, err); d != nil && ctx.Err() == nil {
			return nil, d
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // its own text repeats the method and a made-up URL
		}
		return nil, c.wrap(method, path, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readError(resp)
}

// readError turns an answer that is not 2xx into an *Error, also when its body is none of ours.
func readError(resp *http.Response) *Error {
	e := &Error{}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err := json.Unmarshal(b, e); err != nil || e.Message == "" {
		*e = Error{Code: Internal, Message: "the daemon answered " + resp.Status, Details: string(bytes.TrimSpace(b))}
	}
	e.Status = resp.StatusCode
	return e
}

func (c *Client) wrap(method, path string, err error) error {
	return fmt.Errorf("%s %s at %s: %w", method, path, c.socket, err)
}

// values makes a query of pairs, leaving empty ones out.
func values(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
