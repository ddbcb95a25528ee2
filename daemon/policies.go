package daemon

import (
	"context"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Apply carries out a change of policies and modes: all of it, or nothing.
func (d *Daemon) Apply(ctx context.Context, r api.ApplyRequest) (api.ApplyResult, error) {
	begin := time.Now()
	out, said, err := d.apply(ctx, r)
	if err == nil && r.Wait != "" {
		out.Nodes = d.cluster.await(ctx, r.Wait, said, begin)
	}
	return out, err
}

// apply also gives the writes that the cluster hears.
func (d *Daemon) apply(ctx context.Context, r api.ApplyRequest) (api.ApplyResult, []gossip.Record, error) {
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.notPending(&r); err != nil {
		return api.ApplyResult{}, nil, err
	}
	p, err := d.planRequest(r)
	if err != nil {
		return api.ApplyResult{}, nil, err
	}
	out := p.result
	if out.Workloads, err = d.enact(ctx, p); err != nil {
		return api.ApplyResult{}, nil, err
	}
	out.Generation = d.generation.Load()
	out.Pending = d.pendingRow()
	return out, p.said, nil
}

// enact puts a plan in force: in the store first, so that a full disk changes nothing. It returns
// when the workloads of this node hold it, and how many do. The caller holds d.change.
func (d *Daemon) enact(ctx context.Context, p *plan) (int, error) {
	d.number(ctx, p)
	if err := d.commit(p); err != nil {
		return 0, err
	}
	d.stand(p)
	held := d.use(ctx, p)
	d.rest(p)
	return held, nil
}

// number makes a plan that changes something the next generation.
func (d *Daemon) number(ctx context.Context, p *plan) {
	if g := p.change.Generation; g != nil {
		g.Number, g.Who = d.generation.Load()+1, p.who
		author(ctx, g)
		d.await(p)
	}
}

// stand takes note that a plan is stored.
func (d *Daemon) stand(p *plan) {
	if g := p.change.Generation; g != nil {
		d.generation.Store(g.Number)
		d.newest.Store(g.Time.UnixNano())
	}
	d.shadows.arm(p.arm)
	if p.change.Pending != nil && *p.change.Pending != nil {
		d.setPending(*p.change.Pending)
	}
}

// rest takes note that what waited for confirmation does so no more: only when that holds, so that who
// sees nothing waiting sees it in force.
func (d *Daemon) rest(p *plan) {
	if p.change.Pending != nil && *p.change.Pending == nil {
		d.setPending(nil)
	}
}

// use puts a plan in force, and returns how many workloads of this node hold it.
func (d *Daemon) use(ctx context.Context, p *plan) int {
	d.tellExpired(p.before, p.at)
	d.rules.Store(p.rules)
	d.modes.Store(p.modes)
	d.shadows.follow(p.rules)
	d.hits.follow(p.rules, d.now())
	d.lockBaselines()
	begin := d.now()
	// Stored is in force: a caller who hangs up does not keep it from the workloads.
	limit := settleWait
	if p.confirm > 0 { // the deadline must find nobody waiting here
		limit = min(limit, p.confirm)
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	held := d.settle(wait, p.cause)
	d.cluster.took(p.said, held == len(d.local()))
	d.log.Info("in force", "generation", d.generation.Load(), "reason", p.cause, "count", held, "took", d.now().Sub(begin))
	return held
}

// DeletePolicy removes one policy that came by the API.
func (d *Daemon) DeletePolicy(ctx context.Context, kind, namespace, name string) error {
	_, err := d.Apply(ctx, api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Kind: kind, Namespace: namespace, Name: name}}})
	return err
}

// Policies lists what is in force, and the shadows.
func (d *Daemon) Policies(context.Context) ([]api.Policy, error) {
	rb, view := d.rules.Load(), d.index.View()
	ends, now, selects := rb.bySlot(), d.judged(), rb.selects(view)
	out := make([]api.Policy, 0, len(rb.held))
	for _, s := range rb.slots() {
		h := rb.held[s]
		row := api.Policy{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name, Mode: policy.ModeEnforce, Source: h.from, Applied: h.applied, YAML: h.Text,
			Selects: []string{}, Types: []string{}}
		if s.shadow {
			row.Mode, row.Shadow = policy.ModeShadow, d.shadowRow(rb, s)
		} else {
			row.Stats = d.hits.stats(&h.Policy)
		}
		for _, service := range sortedServices(selects[s]) {
			row.Selects = append(row.Selects, service.String())
		}
		row.Expires, row.Expired = expiryOf(ends[s], now)
		for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
			if h.Isolates(dir) {
				row.Types = append(row.Types, strings.ToUpper(dir.String()[:1])+dir.String()[1:])
			}
		}
		out = append(out, row)
	}
	return out, nil
}
