package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// The agent's requests: JSON over its unix socket in the lab's folder.
const (
	pathReady   = "/ready"   // GET: agentStatus, when every listener is open
	pathProbe   = "/probe"   // POST []Probe: []answer, in the same order
	pathGlance  = "/glance"  // the same, less patient
	pathOutside = "/outside" // POST []netip.Addr: makes them hosts of the outside network
	pathAgain   = "/again"   // POST string: a pod has a new namespace
)

// agentStatus is what the agent has to say of its listeners.
type agentStatus struct {
	PID       int
	Listeners int
	Problems  []string // ports that could not be opened
}

// answer is what a Probe gets: its own JSON reads only the question.
type answer struct {
	Verdict, Error, Answer string
	LatencyMS              float64
}

// agent is the one process of a lab that holds its listeners and sends its probes.
type agent struct {
	dir    *directory
	echoes *echoes

	probing sync.Mutex // one batch at a time: they share threads and descriptors
	status  agentStatus
}

// RunAgent is the process that a lab starts for itself: it listens on every container port of every
// pod and answers on the lab's agent.sock until ctx ends.
func RunAgent(ctx context.Context, dir string) error {
	s, err := readState(dir)
	if err != nil {
		return err
	}
	if err := allFiles(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &agent{dir: newDirectory(s), echoes: newEchoes(ctx), status: agentStatus{PID: os.Getpid()}}
	defer a.echoes.close()
	defer cancel() // before close, which waits for who ends with ctx
	if s.Listen {
		a.listen()
	}
	socket := filepath.Join(dir, "agent.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(err, ln.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathReady, func(w http.ResponseWriter, _ *http.Request) { reply(w, a.status, nil) })
	mux.HandleFunc("POST "+pathProbe, a.serveProbe)
	mux.HandleFunc("POST "+pathGlance, a.serveProbe)
	mux.HandleFunc("POST "+pathOutside, a.serveOutside)
	mux.HandleFunc("POST "+pathAgain, a.serveAgain)
	srv := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	a.echoes.wg.Add(1) // given back by the watch
	go a.watch(ctx, cancel, s.file())
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// watch ends the agent when the lab's state is gone: without it nobody would find the agent to end
// it. It ends with ctx.
func (a *agent) watch(ctx context.Context, cancel context.CancelFunc, file string) {
	defer a.echoes.wg.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
				cancel()
				return
			}
		}
	}
}

// allFiles raises the soft limit of open files to the hard one: a listener each for some thousand
// ports, and a socket for each probe in flight.
func allFiles() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

// listen opens the container ports of all pods. hostNetwork pods share their node's namespace, so
// the second to want a port there goes without.
func (a *agent) listen() {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(8)
	for _, p := range a.dir.state.Pods {
		group.Go(func() error {
			doors, failed, err := a.listenAt(p)
			mu.Lock()
			defer mu.Unlock()
			a.status.Listeners += len(doors) - len(failed)
			if err != nil {
				a.status.Problems = append(a.status.Problems, fmt.Sprintf("pod %s: %v", p, err))
			}
			for d, err := range failed {
				a.status.Problems = append(a.status.Problems, fmt.Sprintf("pod %s: %s port %d: %v", p, d.Protocol, d.Port, err))
			}
			return nil
		})
	}
	_ = group.Wait() // its functions return nil
}

// listenAt opens a pod's container ports.
func (a *agent) listenAt(p *Pod) (doors []door, failed map[door]error, err error) {
	seen := map[door]bool{}
	for _, port := range p.Ports {
		d := door{p.NetNS, port.Protocol, port.Port}
		if !seen[d] {
			doors = append(doors, d)
		}
		seen[d] = true
	}
	failed, err = a.echoes.acquire(p.NetNS, doors, func(netip.Addr) string { return p.String() })
	return doors, failed, err
}

// serveAgain listens in a pod's new namespace as in the one before, and reads anew who has which address.
func (a *agent) serveAgain(w http.ResponseWriter, r *http.Request) {
	var name string
	if err := json.NewDecoder(r.Body).Decode(&name); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.probing.Lock()
	defer a.probing.Unlock()
	s, err := readState(a.dir.state.Dir)
	if err != nil {
		reply(w, nil, err)
		return
	}
	a.dir = newDirectory(s)
	p := s.pod(name)
	if p == nil || p.HostNetwork {
		reply(w, struct{}{}, nil)
		return
	}
	a.echoes.drop(p.NetNS)
	_, failed, problem := a.listenAt(p)
	reply(w, struct{}{}, errors.Join(append(slices.Collect(maps.Values(failed)), problem)...))
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

func (a *agent) serveOutside(w http.ResponseWriter, r *http.Request) {
	var addrs []netip.Addr
	if err := json.NewDecoder(r.Body).Decode(&addrs); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var errs []error
	for _, addr := range addrs {
		errs = append(errs, a.dir.state.addOutside(addr.Unmap()))
	}
	reply(w, struct{}{}, errors.Join(errs...))
}

func (a *agent) serveProbe(w http.ResponseWriter, r *http.Request) {
	var probes []Probe
	if err := json.NewDecoder(r.Body).Decode(&probes); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.probe(r.Context(), probes, r.URL.Path == pathGlance)
	out := make([]answer, len(probes))
	for i, p := range probes {
		out[i] = answer{p.Verdict, p.Error, p.Answer, p.LatencyMS}
	}
	reply(w, out, nil)
}

// probe answers every question in place.
func (a *agent) probe(ctx context.Context, probes []Probe, glance bool) {
	a.probing.Lock()
	defer a.probing.Unlock()
	shots := make([]*shot, len(probes))
	outside := map[netip.Addr]error{}
	for i := range probes {
		p := &probes[i]
		s, addrs, err := a.dir.resolve(p)
		for _, addr := range addrs {
			if _, done := outside[addr]; !done && err == nil {
				outside[addr] = a.dir.state.addOutside(addr)
			}
			err = errors.Join(err, outside[addr])
		}
		if err != nil {
			p.Error = err.Error()
			continue
		}
		shots[i] = &s
	}
	failed, held := a.open(shots)
	defer func() {
		for _, d := range held {
			a.echoes.release(d)
		}
	}()
	for i, s := range shots {
		if s == nil {
			continue
		}
		for _, d := range s.doors {
			if err := failed[d]; err != nil {
				probes[i].Error = fmt.Sprintf("listen on %s port %d of %s: %v", d.Protocol, d.Port, probes[i].Server, err)
				shots[i] = nil
				break
			}
			s.foreign = s.foreign || a.echoes.foreign(d)
		}
	}
	undo, err := a.dir.prime(shots)
	if err != nil {
		undo = func() {}
		slog.Warn("neighbours not primed; probes may be lost", "err", err)
	}
	defer undo()
	for i, o := range shootAll(ctx, shots, a.dir.canary(), glance) {
		if shots[i] != nil {
			judge(&probes[i], shots[i], o)
		}
	}
}

// open makes somebody listen wherever a shot goes, and gives what must be released again.
func (a *agent) open(shots []*shot) (map[door]error, []door) {
	wanted := map[string][]door{}
	seen := map[door]bool{}
	var held []door
	for _, s := range shots {
		if s == nil {
			continue
		}
		for _, d := range s.doors {
			if !seen[d] {
				wanted[d.NetNS] = append(wanted[d.NetNS], d)
				held = append(held, d)
			}
			seen[d] = true
		}
	}
	failed := map[door]error{}
	for netns, doors := range wanted {
		bad, err := a.echoes.acquire(netns, doors, a.dir.answerer(netns))
		for _, d := range doors {
			if err != nil {
				failed[d] = err
			} else if bad[d] != nil {
				failed[d] = bad[d]
			}
		}
	}
	return failed, held
}

// judge writes a probe's answer. Silence of another program's socket is no verdict: it may not
// answer what it does not understand.
func judge(p *Probe, s *shot, o outcome) {
	p.LatencyMS = float64(o.took.Microseconds()) / 1000
	switch {
	case o.err != nil:
		p.Error = o.err.Error()
	case o.allowed:
		p.Verdict, p.Answer = "allow", o.answer
	case s.foreign && s.proto != identity.TCP:
		p.Error = fmt.Sprintf("no echo, but another program holds %s port %d there", s.proto, s.server.Port())
	default:
		p.Verdict = "deny"
	}
}

// agentClient speaks to a lab's agent.
type agentClient struct {
	http *http.Client
}

func newAgentClient(dir string) *agentClient {
	socket := filepath.Join(dir, "agent.sock")
	var d net.Dialer
	return &agentClient{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

func (c *agentClient) close() { c.http.CloseIdleConnections() }

// call sends in (nil: a GET) and reads out.
func (c *agentClient) call(ctx context.Context, path string, in, out any) error {
	method, body := http.MethodGet, ""
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		method, body = http.MethodPost, string(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the lab's agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		msg, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil {
			return fmt.Errorf("the lab's agent: %w", err)
		}
		return fmt.Errorf("the lab's agent: %s", strings.TrimSpace(string(msg)))
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// ready waits until the agent listens everywhere.
func (c *agentClient) ready(ctx context.Context) (agentStatus, error) {
	for {
		var st agentStatus
		err := c.call(ctx, pathReady, nil, &st)
		if err == nil {
			return st, nil
		}
		select {
		case <-ctx.Done():
			return st, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
