package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// handler is the map of the API: one line per path and method.
func (s *Server) handler() http.Handler {
	b, m := s.backend, http.NewServeMux()
	m.HandleFunc("GET "+api.PathStatus, plain(s, b.Status))
	m.HandleFunc("GET "+api.PathWorkloads, plain(s, b.Workloads))
	m.HandleFunc("GET "+api.PathRules, s.rules)
	m.HandleFunc("GET "+api.PathFlows, s.flows)
	m.HandleFunc("GET "+api.PathNames, plain(s, b.Names))
	m.HandleFunc("GET "+api.PathGraph, plain(s, b.Graph))
	m.HandleFunc("GET "+api.PathPolicies, plain(s, b.Policies))
	m.HandleFunc("POST "+api.PathPolicies, posted(s, s.cfg.MaxBody, b.Apply))
	m.HandleFunc("DELETE "+api.PathPolicies, s.deletePolicy)
	m.HandleFunc("GET "+api.PathGenerate, s.generate)
	m.HandleFunc("POST "+api.PathPreview, posted(s, s.cfg.MaxBody, b.Preview))
	m.HandleFunc("GET "+api.PathHistory, s.history)
	m.HandleFunc("POST "+api.PathConfirm, posted(s, s.cfg.MaxBody, b.Confirm))
	m.HandleFunc("GET "+api.PathModes, plain(s, b.Modes))
	m.HandleFunc("PUT "+api.PathModes, posted(s, s.cfg.MaxBody, b.SetMode))
	m.HandleFunc("GET "+api.PathAlerts, s.alerts)
	m.HandleFunc("POST "+api.PathExplain, posted(s, s.cfg.MaxBody, b.Explain))
	m.HandleFunc("POST "+api.PathTrace, posted(s, s.cfg.MaxBody, b.Trace))
	m.HandleFunc("GET "+api.PathCluster, plain(s, b.ClusterStatus))
	m.HandleFunc("POST "+api.PathClusterKeys, posted(s, s.cfg.MaxBody, b.ClusterKeys))
	m.HandleFunc("GET "+api.PathClusterForce, plain(s, b.ClusterForce))
	m.HandleFunc("POST "+api.PathClusterForget, posted(s, s.cfg.MaxBody, b.ClusterForget))
	m.HandleFunc("POST "+api.PathClusterLeave, posted(s, s.cfg.MaxBody, b.ClusterLeave))
	m.HandleFunc("POST "+api.PathCNI, s.cni)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, api.Errorf(api.NotFound, "%s %s: no such path or method", r.Method, r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.allowed(r); err != nil {
			s.fail(w, r, err)
			return
		}
		m.ServeHTTP(w, r)
	})
}

// plain answers a GET that takes no parameters.
func plain[T any](s *Server, call func(context.Context) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := query(r); err != nil {
			s.fail(w, r, err)
			return
		}
		v, err := call(r.Context())
		s.answer(w, r, v, err)
	}
}

// posted answers a call that takes a JSON body.
func posted[Q, A any](s *Server, limit int64, call func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := decode(w, r, limit, &q); err != nil {
			s.fail(w, r, err)
			return
		}
		v, err := call(r.Context(), q)
		s.answer(w, r, v, err)
	}
}

func (s *Server) rules(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "workload", "guard")
	guard := q.flag("guard", &err)
	if err == nil && q.Get("workload") == "" {
		err = api.Errorf(api.BadRequest, "workload: missing; want an id or namespace/name")
	}
	var text string
	if err == nil {
		text, err = s.backend.Rules(r.Context(), q.Get("workload"), guard)
	}
	s.text(w, r, "text/plain; charset=utf-8", text, err)
}

func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "namespace", "service", "format")
	format := q.oneOf("format", &err, "native", "kubernetes")
	var text string
	if err == nil {
		text, err = s.backend.Generate(r.Context(), q.Get("namespace"), q.Get("service"), format)
	}
	s.text(w, r, "text/yaml; charset=utf-8", text, err)
}

func (s *Server) flows(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "service", "verdict", "limit", "follow")
	fq := api.FlowQuery{Service: q.Get("service"), Verdict: q.Get("verdict"), Limit: q.count("limit", &err)}
	if fq.Verdict != "" {
		q.oneOf("verdict", &err, "allow", "alert", "deny")
	}
	switch follow := q.flag("follow", &err); {
	case err != nil:
		s.fail(w, r, err)
	case follow:
		stream(s, w, r, func(ctx context.Context, send func(api.Flow) error) error {
			return s.backend.FollowFlows(ctx, fq, send)
		})
	default:
		v, err := s.backend.Flows(r.Context(), fq)
		s.answer(w, r, v, err)
	}
}

func (s *Server) alerts(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "kind", "limit", "follow")
	kind, limit := q.Get("kind"), q.count("limit", &err)
	switch follow := q.flag("follow", &err); {
	case err != nil:
		s.fail(w, r, err)
	case follow:
		stream(s, w, r, func(ctx context.Context, send func(json.RawMessage) error) error {
			return s.backend.FollowAlerts(ctx, kind, limit, send)
		})
	default:
		v, err := s.backend.Alerts(r.Context(), kind, limit)
		s.answer(w, r, v, err)
	}
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "generation", "limit")
	limit := q.count("limit", &err)
	var list []api.Generation
	switch n, convErr := strconv.ParseUint(q.Get("generation"), 10, 64); {
	case err != nil:
	case q.Get("generation") == "":
		list, err = s.backend.History(r.Context(), limit)
	case convErr != nil:
		err = api.Errorf(api.BadRequest, "generation %q: want a number", q.Get("generation"))
	default:
		var one api.Generation
		one, err = s.backend.Generation(r.Context(), n)
		list = []api.Generation{one}
	}
	s.answer(w, r, list, err)
}

func (s *Server) deletePolicy(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "kind", "namespace", "name")
	if err == nil && q.Get("name") == "" {
		err = api.Errorf(api.BadRequest, "name: missing; want the policy's name")
	}
	if err == nil {
		err = s.backend.DeletePolicy(r.Context(), q.Get("kind"), q.Get("namespace"), q.Get("name"))
	}
	s.done(w, r, err)
}

func (s *Server) cni(w http.ResponseWriter, r *http.Request) {
	var q api.CNIRequest
	err := decode(w, r, s.cfg.MaxCNIBody, &q)
	if err == nil {
		err = s.backend.CNI(r.Context(), q)
	}
	s.done(w, r, err)
}

// decode reads a JSON body strictly: one value, no unknown field, nothing after it.
func decode(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err == nil {
			err = errors.New("more than one JSON value")
		}
	}
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return api.Errorf(api.TooLarge, "%s %s: body over %d bytes", r.Method, r.URL.Path, big.Limit)
	}
	return api.Errorf(api.BadRequest, "%s %s: body: %v", r.Method, r.URL.Path, err)
}

// params are a request's query parameters, each at most once and none unknown.
type params struct{ url.Values }

func query(r *http.Request, known ...string) (params, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return params{}, api.Errorf(api.BadRequest, "query: %v", err)
	}
next:
	for k, v := range q {
		for _, want := range known {
			if k == want && len(v) == 1 {
				continue next
			} else if k == want {
				return params{q}, api.Errorf(api.BadRequest, "%s: given %d times", k, len(v))
			}
		}
		return params{q}, api.Errorf(api.BadRequest, "%s %s: unknown parameter %q", r.Method, r.URL.Path, k)
	}
	return params{q}, nil
}

// The readers of single parameters keep the first error, so that a handler checks once.

func (p params) flag(name string, err *error) bool {
	switch p.oneOf(name, err, "true", "false") {
	case "true":
		return true
	}
	return false
}

func (p params) count(name string, err *error) int {
	v := p.Get(name)
	if v == "" || *err != nil {
		return 0
	}
	n, convErr := strconv.Atoi(v)
	if convErr != nil || n < 0 {
		*err = api.Errorf(api.BadRequest, "%s %q: want a number, 0 or more", name, v)
	}
	return n
}

func (p params) oneOf(name string, err *error, allowed ...string) string {
	v := p.Get(name)
	if v == "" || *err != nil {
		return v
	}
	for _, a := range allowed {
		if v == a {
			return v
		}
	}
	*err = api.Errorf(api.BadRequest, "%s %q: want one of %v", name, v, allowed)
	return v
}
