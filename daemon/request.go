package daemon

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// The bounds of confirmWithin.
const (
	minConfirm = time.Second
	maxConfirm = 24 * time.Hour
)

// maxWarnings bounds what one call is warned of.
const maxWarnings = 100

// planRequest works out what a request would change. The caller holds d.change.
func (d *Daemon) planRequest(r api.ApplyRequest) (p *plan, err error) {
	if err := checkRequest(&r); err != nil {
		return nil, err
	}
	switch r.Do {
	case api.DoApply:
		p, err = d.planApply(r)
	case api.DoDelete:
		p, err = d.planDelete(r)
	case api.DoPromote:
		p, err = d.planPromote(r)
	case api.DoRollback:
		p, err = d.planRollback(r)
	default:
		err = api.Errorf(api.BadRequest, "do %q: want nothing, %s, %s or %s", r.Do, api.DoDelete, api.DoPromote, api.DoRollback)
	}
	if err != nil {
		return nil, err
	}
	p.message = r.Message
	for _, f := range r.Files {
		if len(p.files) < maxFileNames {
			p.files = append(p.files, f.Name)
		}
	}
	if r.ConfirmWithin != "" {
		if p.confirm, err = parseConfirm(r.ConfirmWithin); err != nil {
			return nil, err
		}
	}
	if err := p.finish(); err != nil {
		return nil, api.Errorf(api.BadRequest, "%v", err)
	}
	return p, d.signing.allow(p)
}

// checkRequest refuses what says two things at once, or nothing.
func checkRequest(r *api.ApplyRequest) error {
	bad := func(format string, args ...any) error { return api.Errorf(api.BadRequest, format, args...) }
	for _, f := range r.Files {
		if len(f.Name) > maxFileName {
			return bad("a file's name of %d bytes, bound %d", len(f.Name), maxFileName)
		}
	}
	switch {
	case !goodWait(r.Wait):
		return bad("wait %q: want a span of up to %v, such as 30s", r.Wait, maxWait)
	case len(r.Message) > maxMessage:
		return bad("message of %d bytes, bound %d", len(r.Message), maxMessage)
	case r.Do != api.DoApply && (r.Prune || r.Mode != "" || len(r.Services) > 0):
		return bad("prune, mode and services go with an apply only")
	case r.Do != api.DoPromote && (r.After > 0 || r.Now):
		return bad("after and now go with promote only")
	case r.After > 0 && r.Now:
		return bad("after waits for evidence and now does not; give one of them")
	case r.Do != api.DoRollback && (r.Generation != nil || r.KeepFiles):
		return bad("generation and keepFiles go with rollback only")
	case (r.Do == api.DoApply || r.Do == api.DoRollback) && len(r.Names) > 0:
		return bad("names go with delete and promote only")
	case (r.Do == api.DoPromote || r.Do == api.DoRollback) && len(r.Files) > 0:
		return bad("files go with apply and delete only")
	case (r.Do == api.DoDelete || r.Do == api.DoPromote) && len(r.Files)+len(r.Names) == 0:
		return bad("%s of nothing; name policies", r.Do)
	}
	return nil
}

func parseConfirm(text string) (time.Duration, error) {
	span, err := time.ParseDuration(text)
	if err != nil || span < minConfirm || span > maxConfirm {
		return 0, api.Errorf(api.BadRequest, "confirmWithin %q: want a span of %v to %v, such as 60s", text, minConfirm, maxConfirm)
	}
	return span, nil
}

// planApply puts the policies of files in force, or beside what is in force as shadows.
func (d *Daemon) planApply(r api.ApplyRequest) (*plan, error) {
	files, orders, err := takeOrders(r.Files)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "%v", err)
	}
	fresh, err := parseFiles(files, r.Shadow)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "%v", err)
	}
	p := d.newPlan(causeApply)
	p.fresh = fresh
	if len(fresh) == 0 && r.Mode != "" {
		p.cause = causeMode
	}
	wanted := map[slot]bool{}
	for _, f := range fresh {
		s := slotOf(&f)
		wanted[s] = true
		old, exists := p.before.held[s]
		switch {
		case exists && old.from != sourceAPI:
			return nil, api.Errorf(api.Conflict, "%s: %s is held by %s; change that file", f.Source, s, old.from)
		case exists && sameText(old.Text, f.Text):
			p.result.Unchanged = append(p.result.Unchanged, s.String())
			continue
		}
		p.held[s] = heldPolicy{f, sourceAPI, p.at}
		p.warn(&f)
	}
	for s, h := range p.before.held {
		if h.from == sourceAPI && !wanted[s] && (r.Prune && p.pruned(s, &r, wanted) || p.superseded(s, wanted)) {
			delete(p.held, s)
		}
	}
	if err := p.obey(orders, wanted); err != nil {
		return nil, err
	}
	return p, d.planModes(p, r)
}

// pruned says that a policy goes because the files do not have it. One whose shadow they have stays.
func (p *plan) pruned(s slot, r *api.ApplyRequest, wanted map[slot]bool) bool {
	return s.shadow || !r.Shadow && !wanted[slot{s.Key, true}]
}

// superseded says that a shadow ends because another text is put in force in its place. Where the one
// in force is only said again, its shadow goes on.
func (p *plan) superseded(s slot, wanted map[slot]bool) bool {
	now := slot{Key: s.Key}
	before, held := p.before.held[now]
	return s.shadow && wanted[now] && !(held && before.same(p.held[now]))
}

// warn tells of what a policy says that may not be meant so.
func (p *plan) warn(f *policy.Policy) {
	say := func(format string, args ...any) {
		if len(p.result.Warnings) < maxWarnings {
			p.result.Warnings = append(p.result.Warnings, fmt.Sprintf(format, args...))
		}
	}
	for _, w := range f.Warnings {
		say("%s: %s", f.Source, w)
	}
	for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
		for i, r := range f.Rules(dir) {
			if !r.Expires.IsZero() && !r.Expires.After(p.at) {
				say("%s: rule %s[%d] ended at %s: it means nothing", f.Source, dir, i, r.Expires.UTC().Format(time.RFC3339))
			}
		}
	}
}

// planModes adds the modes of a request: of the services it names, or of those its files select.
func (d *Daemon) planModes(p *plan, r api.ApplyRequest) error {
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
		set, err := policy.NewSet(enforced(p.fresh)...)
		if err != nil {
			return api.Errorf(api.BadRequest, "%v", err)
		}
		services = selected(d.index.View(), set)
		if len(services) == 0 && len(p.fresh) > 0 {
			p.result.Warnings = append(p.result.Warnings, "the files select no known workload: no service's mode was changed")
		}
	}
	p.modes = p.modes.with(services, mode)
	if len(p.modes.own) > maxModes {
		return api.Errorf(api.BadRequest, "%d services with a mode of their own, bound %d", len(p.modes.own), maxModes)
	}
	return nil
}

// planDelete takes policies out: those of files, and those that are named. With r.Shadow only shadows
// go, else a policy goes with its shadow.
func (d *Daemon) planDelete(r api.ApplyRequest) (*plan, error) {
	p := d.newPlan(causeDelete)
	of := func(s slot) bool { return s.shadow || !r.Shadow }
	none := "not in force"
	if r.Shadow {
		none = "no shadow of it"
	}
	keys, err := p.before.pick(r.Names, of, none)
	if err != nil {
		return nil, err
	}
	fresh, err := parseFiles(r.Files, r.Shadow)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "%v", err)
	}
	for _, f := range fresh {
		if !slices.ContainsFunc([]slot{{f.Key(), false}, {f.Key(), true}}, func(s slot) bool { _, held := p.held[s]; return held && of(s) }) {
			return nil, api.Errorf(api.NotFound, "%s: %s: %s; nothing was changed", f.Source, slot{Key: f.Key()}, none)
		}
		keys = append(keys, f.Key())
	}
	for _, key := range keys {
		for _, s := range []slot{{key, false}, {key, true}} {
			h, held := p.held[s]
			switch {
			case !held || !of(s):
			case h.from != sourceAPI:
				return nil, api.Errorf(api.Conflict, "%s is held by %s; remove it there", s, h.from)
			default:
				delete(p.held, s)
			}
		}
	}
	return p, nil
}

// parseFiles parses all files of a request, or none. The same policy twice is an error. With shadow
// all of them are shadows, whatever they say themselves.
func parseFiles(files []api.File, shadow bool) ([]policy.Policy, error) {
	var out []policy.Policy
	var errs []error
	first := map[slot]string{}
	for _, f := range files {
		list, err := policy.Parse(f.Name, []byte(f.Data))
		errs = append(errs, err)
		for i := range list {
			p := &list[i]
			p.Shadow = p.Shadow || shadow
			if at, twice := first[slotOf(p)]; twice {
				errs = append(errs, fmt.Errorf("%s: %s is defined already at %s", p.Source, slotOf(p), at))
			}
			first[slotOf(p)] = p.Source
		}
		if out = append(out, list...); len(out) > maxPolicies {
			return nil, fmt.Errorf("%s: more than %d policies with the files before it; nothing was changed", f.Name, maxPolicies)
		}
	}
	return out, errors.Join(errs...)
}

// enforced gives the policies as if none were a shadow.
func enforced(list []policy.Policy) []policy.Policy {
	out := slices.Clone(list)
	for i := range out {
		out[i].Shadow = false
	}
	return out
}

// selected lists the services of the workloads that a policy of the set selects.
func selected(view *identity.View, set *policy.Set) []identity.Service {
	found := map[identity.Service]bool{}
	for _, w := range view.Workloads {
		if !found[w.Service] && len(set.About(w, policy.Egress))+len(set.About(w, policy.Ingress)) > 0 {
			found[w.Service] = true
		}
	}
	return sortedServices(found)
}
