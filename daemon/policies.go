package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// plan is a change of policies and modes that was found valid, and is not yet in force.
type plan struct {
	rules  *rulebook
	modes  *modes
	result api.ApplyResult // without generation and workloads
	change Change
}

// planChange works out what a request would change. The caller holds d.change.
func (d *Daemon) planChange(r api.ApplyRequest) (*plan, error) {
	fresh, err := parseFiles(r.Files)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "%v", err)
	}
	now := d.rules.Load()
	p := &plan{rules: now, modes: d.modes.Load(), change: Change{Put: map[string]StoredPolicy{}}}
	p.result = api.ApplyResult{Created: []string{}, Changed: []string{}, Unchanged: []string{}, Removed: []string{}}
	next := maps.Clone(now.held)
	for _, f := range fresh {
		key := f.Key()
		old, exists := now.held[key]
		switch {
		case exists && old.from != sourceAPI:
			return nil, api.Errorf(api.Conflict, "%s: %s is held by %s; change that file", f.Source, key, old.from)
		case exists && strings.TrimSpace(old.Text) == strings.TrimSpace(f.Text):
			p.result.Unchanged = append(p.result.Unchanged, key.String())
			continue
		case exists:
			p.result.Changed = append(p.result.Changed, key.String())
		default:
			p.result.Created = append(p.result.Created, key.String())
		}
		next[key] = heldPolicy{f, sourceAPI, d.now()}
		p.change.Put[storeKey(key)] = StoredPolicy{File: f.Source, Text: f.Text, Applied: d.now()}
	}
	if r.Prune {
		for _, key := range now.keys() {
			if now.held[key].from == sourceAPI && !slices.ContainsFunc(fresh, func(f policy.Policy) bool { return f.Key() == key }) {
				delete(next, key)
				p.remove(key)
			}
		}
	}
	if p.rules, err = newRulebook(next); err != nil {
		return nil, api.Errorf(api.BadRequest, "%v", err)
	}
	return p, d.planModes(p, r, fresh)
}

func (p *plan) remove(key policy.Key) {
	p.result.Removed = append(p.result.Removed, key.String())
	p.change.Delete = append(p.change.Delete, storeKey(key))
}

// planModes adds the modes of a request: of the services it names, or of those its files select.
func (d *Daemon) planModes(p *plan, r api.ApplyRequest, fresh []policy.Policy) error {
	if r.Mode == "" {
		return nil
	}
	mode, err := policy.ParseMode(r.Mode)
	if err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	var services []identity.Service
	if len(r.Services) > 0 {
		if services, err = parseServices(r.Services); err != nil {
			return api.Errorf(api.BadRequest, "%v", err)
		}
	} else {
		services = selected(d.index.View(), p.rules.set, fresh)
		if len(services) == 0 && len(fresh) > 0 {
			p.result.Warnings = append(p.result.Warnings, "the files select no known workload: no service's mode was changed")
		}
	}
	p.modes = p.modes.with(services, mode)
	if len(p.modes.own) > maxModes {
		return api.Errorf(api.BadRequest, "%d services with a mode of their own, bound %d", len(p.modes.own), maxModes)
	}
	if services == nil {
		p.change.ClearModes, p.change.DefaultMode = true, &mode
	}
	p.change.Modes = map[string]policy.Mode{}
	for _, s := range services {
		p.change.Modes[s.String()] = mode
	}
	return nil
}

// selected lists the services of the workloads that one of the policies selects.
func selected(view *identity.View, set *policy.Set, of []policy.Policy) []identity.Service {
	wanted := map[policy.Key]bool{}
	for i := range of {
		wanted[of[i].Key()] = true
	}
	found := map[identity.Service]bool{}
	for _, w := range view.Workloads {
		for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
			for _, p := range set.Selecting(w, dir) {
				if wanted[p.Key()] {
					found[w.Service] = true
				}
			}
		}
	}
	return sortedServices(found)
}

// parseFiles parses all files of a request, or none. The same policy twice is an error.
func parseFiles(files []api.File) ([]policy.Policy, error) {
	var out []policy.Policy
	var errs []error
	for _, f := range files {
		list, err := policy.Parse(f.Name, []byte(f.Data))
		out = append(out, list...)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	_, err := policy.NewSet(out...)
	return out, err
}

// enact puts a plan in force: in the store first, so that a full disk changes nothing. It returns
// when the workloads of this node hold it, and how many do. The caller holds d.change.
func (d *Daemon) enact(ctx context.Context, p *plan, cause string) (int, error) {
	if err := d.store.Commit(p.change); err != nil {
		return 0, api.Errorf(api.Internal, "%v", err)
	}
	d.rules.Store(p.rules)
	d.modes.Store(p.modes)
	generation := d.generation.Add(1)
	d.lockBaselines()
	begin := d.now()
	// Stored is in force: a caller who hangs up does not keep it from the workloads.
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWait)
	defer cancel()
	held := d.settle(wait, cause)
	d.log.Info("in force", "generation", generation, "reason", cause, "count", held, "took", d.now().Sub(begin))
	return held, nil
}

// Apply puts policy files in force: all of them, or none.
func (d *Daemon) Apply(ctx context.Context, r api.ApplyRequest) (api.ApplyResult, error) {
	d.change.Lock()
	defer d.change.Unlock()
	p, err := d.planChange(r)
	if err != nil {
		return api.ApplyResult{}, err
	}
	out := p.result
	out.Workloads, err = d.enact(ctx, p, "policy")
	if err != nil {
		return api.ApplyResult{}, err
	}
	out.Generation = d.generation.Load()
	if missing := len(d.local()) - out.Workloads; missing > 0 {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%d workloads do not hold it yet; bulkhead workloads says why", missing))
	}
	return out, nil
}

// DeletePolicy removes one policy that came by the API.
func (d *Daemon) DeletePolicy(ctx context.Context, kind, namespace, name string) error {
	d.change.Lock()
	defer d.change.Unlock()
	now := d.rules.Load()
	var key policy.Key
	for _, k := range now.keys() {
		if k.Name == name && (namespace == "" || k.Namespace == namespace) && (kind == "" || k.Kind == kind) {
			if key.Name != "" {
				return api.Errorf(api.BadRequest, "%s and %s both fit; name kind and namespace", key, k)
			}
			key = k
		}
	}
	held, exists := now.held[key]
	if !exists {
		return api.Errorf(api.NotFound, "policy %s: not in force", strings.Trim(kind+" "+namespace+"/"+name, " /"))
	}
	if held.from != sourceAPI {
		return api.Errorf(api.Conflict, "%s is held by %s; remove it there", key, held.from)
	}
	next := maps.Clone(now.held)
	delete(next, key)
	rules, err := newRulebook(next)
	if err != nil {
		return err
	}
	p := &plan{rules: rules, modes: d.modes.Load()}
	p.remove(key)
	_, err = d.enact(ctx, p, "policy deleted")
	return err
}

// Policies lists what is in force.
func (d *Daemon) Policies(context.Context) ([]api.Policy, error) {
	rb, view := d.rules.Load(), d.index.View()
	out := make([]api.Policy, 0, len(rb.held))
	for _, key := range rb.keys() {
		h := rb.held[key]
		row := api.Policy{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, Source: h.from, Applied: h.applied, YAML: h.Text,
			Selects: []string{}, Types: []string{}}
		for _, s := range selected(view, rb.set, []policy.Policy{h.Policy}) {
			row.Selects = append(row.Selects, s.String())
		}
		for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
			if h.Isolates(dir) {
				row.Types = append(row.Types, strings.ToUpper(dir.String()[:1])+dir.String()[1:])
			}
		}
		out = append(out, row)
	}
	return out, nil
}
