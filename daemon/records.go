package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// learnedDelay is how long what was learned waits for company before it is written: what a crash
	// may lose. The kernel tells a living edge again within a minute.
	learnedDelay = 300 * time.Millisecond
	// learnedRetry is how long after a failed write the next one is tried.
	learnedRetry = 10 * time.Second
)

// counters are since the daemon's start.
type counters struct {
	denied, wouldDeny, overflow, transactions atomic.Uint64

	// Of readers that are closed; open ones are asked.
	records, lost, malformed, forged atomic.Uint64
}

func (c *counters) addReader(s firewall.ReaderStats) {
	c.records.Add(s.Records)
	c.lost.Add(s.Lost + s.Doubtful)
	c.malformed.Add(s.Malformed)
	c.forged.Add(s.Forged)
}

// onRecord is where a packet becomes knowledge: it names both ends as they were at the packet's
// time, folds the record into the graph, asks policy, teaches the baseline, and hands what is odd to
// the alerts. It is the one place that knows whose packet it was: whatever address the packet
// claims, the end that reported it is this workload.
func (d *Daemon) onRecord(id string, r flow.Record) {
	if d.traces.mine(&r) {
		return
	}
	view := d.index.View()
	self := view.Workload(id)
	client, server := d.index.Name(r.Client, r.Time), d.index.Name(r.Server, r.Time)
	if self != nil && r.Sensor == flow.InNamespace {
		switch r.Direction { // zero: met in mid-connection, nobody knows who opened it
		case policy.Egress:
			client = identity.Peer{Kind: identity.Pod, Addr: r.Client, Workload: self}
		case policy.Ingress:
			server = identity.Peer{Kind: identity.Pod, Addr: r.Server, Workload: self}
		}
	}
	var backends []identity.Backend
	if server.Kind == identity.VIP || server.Kind == identity.Resolver { // kube-dns is both
		backends = view.Backends(identity.VIPKey{Addr: r.Server, Protocol: r.Protocol, Port: r.Port})
		if name, ok := view.VIPNames[r.Server]; ok {
			server = identity.Peer{Kind: identity.VIP, Addr: r.Server, Network: name}
		}
	}
	sighting, counted := d.graph.Observe(r, client, server, backends)
	conn := policy.Connection{Client: client, Server: server, Protocol: r.Protocol, Port: r.Port}
	if r.Direction == policy.Egress {
		conn.Names = d.namesOf(id, r.Server)
	}
	if counted {
		d.graph.Named(sighting.Key, conn.Names, r.Time)
		d.markDirty()
	}
	if counted {
		d.try(self, &r, conn, sighting.Key)
		d.hit(&r, conn)
	}
	if r.Event == flow.Usage {
		return
	}
	d.count(&r)
	c := alert.Case{Record: r, Workload: self, Client: client, Server: server, Backends: backends, Sighting: sighting, Known: true, Names: conn.Names}
	if r.Event == flow.Birth || r.Event == flow.Denied {
		// The ends of the edge, not of the packet: behind a virtual address stands a service with a mode.
		m := d.modes.Load()
		c.ClientMode, c.ServerMode = m.modeOfEnd(sighting.Key.Client), m.modeOfEnd(sighting.Key.Server)
		c.Decision = d.rules.Load().set.Evaluate(view, conn)
		if counted && r.Event == flow.Birth && !sighting.Refused && c.Outcome() == policy.Allow {
			d.baseline.Learn(sighting, r.Time)
		}
		if counted {
			c.Baseline, c.Known = d.baseline.Knows(sighting)
		}
	}
	d.alerts.Report(c)
	row := flowRow(&c)
	if r.Event == flow.Denied { // by the end that reports it
		row.OnDeny = d.cfg.OnDeny.manner(sideOf(&c), r.Direction, policy.Enforce)
	}
	d.flows.add(row)
}

func (d *Daemon) count(r *flow.Record) {
	switch {
	case r.Event == flow.Denied || r.Verdict == policy.Deny:
		d.counters.denied.Add(max(r.Count, 1))
	case r.Verdict == policy.Alert:
		d.counters.wouldDeny.Add(max(r.Count, 1))
	}
}

// flowRow is a case as `bulkhead flows` shows it.
func flowRow(c *alert.Case) api.Flow {
	r := &c.Record
	row := api.Flow{
		Time: r.Time, Workload: r.Workload,
		Client: c.Client.String(), ClientIP: addrText(c.Client), Server: c.Server.String(), ServerIP: addrText(c.Server),
		Protocol: r.Protocol.String(), Port: r.Port, Verdict: r.Verdict.String(), Count: r.Count,
		Event: [...]string{"", "birth", "denied", "spoof", "raw", "usage"}[r.Event],
	}
	if r.Direction == policy.Egress || r.Direction == policy.Ingress {
		row.Direction = r.Direction.String()
	}
	if w := c.Workload; w != nil {
		row.Workload = w.Namespace + "/" + w.Name
	}
	if len(c.Names) > 0 && c.Server.Kind == identity.World {
		row.Name = c.Names[0]
	}
	side := sideOf(c)
	row.Rule = cmp.Or(side.Rule, strings.Join(side.Policies, ", "))
	return row
}

// sideOf is what policy says of the end that reports.
func sideOf(c *alert.Case) policy.SideDecision {
	if c.Record.Direction == policy.Ingress {
		return c.Decision.Ingress
	}
	return c.Decision.Egress
}

func addrText(p identity.Peer) string {
	if !p.Addr.IsValid() {
		return ""
	}
	return p.Addr.String()
}

// routineGuards reads the flow log of the node's own namespace, where the guards report.
func (d *Daemon) routineGuards(ctx context.Context) error {
	reader, err := firewall.NewReader(firewall.ReaderConfig{})
	if err != nil {
		return fmt.Errorf("guards: %w", err)
	}
	d.mu.Lock()
	d.guards = reader
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.guards = nil
		d.mu.Unlock()
		reader.Close()
		d.counters.addReader(reader.Stats())
	}()
	return reader.RunGuards(ctx, func(r flow.Record, ifindex int) {
		w := d.behind(ifindex)
		if w == nil {
			return // a guard that outlives its workload for a moment
		}
		r.Workload = w.id
		d.onRecord(w.id, r)
	})
}

// behind gives the workload whose veth has its host's end at ifindex.
func (d *Daemon) behind(ifindex int) *workload {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byHost[ifindex]
}

func (d *Daemon) markDirty() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// routineLearned writes what was learned until ctx ends, and once more then.
func (d *Daemon) routineLearned(ctx context.Context) {
	for {
		select {
		case <-d.dirty:
		case <-ctx.Done():
			d.storeLearned()
			return
		}
		select { // let it gather
		case <-time.After(learnedDelay):
		case <-ctx.Done():
		}
		if !d.storeLearned() {
			d.markDirty()
			select {
			case <-time.After(learnedRetry):
			case <-ctx.Done():
			}
		}
	}
}

// storeLearned writes what changed in graph and baseline. What could not be written stays to be
// written later.
func (d *Daemon) storeLearned() bool {
	changed, removed := d.graph.Dirty()
	d.cluster.learned(changed, removed)
	known := d.baseline.Dirty()
	err := errors.Join(d.storeNames(), d.storeHits(d.life), d.store.PutLearned(changed, removed, known))
	if err != nil {
		d.graph.Redo(changed, removed)
		d.baseline.Redo(known)
		d.warn("learned", fmt.Sprintf("what is learned is not stored: %v", err))
		return false
	}
	d.warn("learned", "")
	return true
}

// FollowFlows sends what passes.
func (d *Daemon) FollowFlows(ctx context.Context, q api.FlowQuery, send func(api.Flow) error) error {
	return d.flows.each(ctx, q.Limit, matches(q), send)
}

// Flows gives what the daemon remembers, newest last.
func (d *Daemon) Flows(_ context.Context, q api.FlowQuery) ([]api.Flow, error) {
	return d.flows.last(q.Limit, matches(q)), nil
}

func matches(q api.FlowQuery) func(api.Flow) bool {
	return func(f api.Flow) bool {
		return (q.Service == "" || f.Client == q.Service || f.Server == q.Service) && (q.Verdict == "" || f.Verdict == q.Verdict)
	}
}
