package daemon

import (
	"bytes"
	"fmt"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/sign"
)

// order is a document of a request that is no policy.
type order struct {
	sign.Order
	text []byte
	at   string // the file, for messages
}

// takeOrders takes the documents that are orders out of a request's files. Lines stay where they are.
func takeOrders(files []api.File) ([]api.File, []order, error) {
	var orders []order
	out := make([]api.File, 0, len(files))
	for _, f := range files {
		var rest []byte
		for _, part := range policy.Split([]byte(f.Data)) {
			o, err := orderIn(part)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", f.Name, err)
			}
			if o == nil {
				rest = append(rest, part...)
				continue
			}
			orders = append(orders, order{*o, part, f.Name})
			rest = append(rest, bytes.Repeat([]byte("\n"), bytes.Count(part, []byte("\n")))...)
		}
		out = append(out, api.File{Name: f.Name, Data: string(rest)})
	}
	return out, orders, nil
}

// orderIn reads a document as an order; nil: it is none. What cannot be read is left to the parser of
// policies, which says where it is wrong.
func orderIn(text []byte) (*sign.Order, error) {
	if !bytes.Contains(text, []byte(sign.KindRemoval)) && !bytes.Contains(text, []byte(sign.KindMode)) {
		return nil, nil
	}
	d, err := sign.Open(text)
	if err != nil {
		return nil, nil
	}
	return d.Order()
}

// obey adds what orders say to a plan. wanted are the policies that the same request brings.
func (p *plan) obey(orders []order, wanted map[slot]bool) error {
	for _, o := range orders {
		var err error
		if o.Kind == sign.KindMode {
			err = p.obeyMode(o)
		} else {
			err = p.obeyRemoval(o, wanted)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) obeyRemoval(o order, wanted map[slot]bool) error {
	s := slotOfRemoval(&o.Order)
	h, held := p.held[s]
	switch {
	case wanted[s]:
		return api.Errorf(api.BadRequest, "%s: %s is applied and removed by the same request", o.at, s)
	case !held:
		p.result.Unchanged = append(p.result.Unchanged, s.String())
		return nil
	case h.from != sourceAPI:
		return api.Errorf(api.Conflict, "%s: %s is held by %s; remove it there", o.at, s, h.from)
	}
	delete(p.held, s)
	p.order(classPolicy, s.store(), o.text)
	return nil
}

func (p *plan) obeyMode(o order) error {
	name := serviceOfMode(&o.Order)
	mode, err := policy.ParseMode(o.Mode)
	if err != nil && o.Mode != sign.DefaultMode {
		return api.Errorf(api.BadRequest, "%s: %v", o.at, err)
	}
	next := p.modes.with([]identity.Service{}, policy.Learn) // a copy
	switch service, bad := parseService(name); {
	case name == allServices && err == nil:
		next.standard, next.set = mode, true
	case name == allServices:
		return api.Errorf(api.BadRequest, "%s: the mode of all services has no default", o.at)
	case bad != nil:
		return api.Errorf(api.BadRequest, "%s: %v", o.at, bad)
	case err != nil:
		delete(next.own, service)
	default:
		next.own[service] = mode
	}
	if len(next.own) > maxModes {
		return api.Errorf(api.BadRequest, "%d services with a mode of their own, bound %d", len(next.own), maxModes)
	}
	p.modes = next
	p.order(classMode, name, o.text)
	return nil
}

// order notes the document that says a change, for the cluster's registers.
func (p *plan) order(class, key string, text []byte) {
	if p.orders == nil {
		p.orders = map[gossip.ID][]byte{}
	}
	p.orders[gossip.ID{Class: class, Key: key}] = text
}

// allow says whether a finished plan may take force by the signatures that come with it. A version that
// was signed before what holds is an old one that somebody plays again.
func (s signing) allow(p *plan) error {
	if !s.asks() {
		return nil
	}
	if p.confirm > 0 {
		return api.Errorf(api.Denied, "a change that undoes itself would do so without a signature; try it as a shadow first (--shadow), and leave --confirm-within away")
	}
	for _, x := range p.diff {
		if err := s.allowSlot(p, x); err != nil {
			return refusal(fmt.Errorf("%s: %w", x.slot, err))
		}
	}
	if p.change.Generation == nil {
		return nil
	}
	for _, m := range p.change.Generation.Modes {
		value := p.orders[gossip.ID{Class: classMode, Key: m.Service}]
		if value == nil && m.After != nil {
			value = []byte(m.After.String())
		}
		if _, err := s.checkMode(m.Service, value); err != nil {
			return refusal(err)
		}
	}
	return nil
}

func (s signing) allowSlot(p *plan, x slotChange) error {
	if x.after != nil && x.after.from != sourceAPI || x.after == nil && x.before.from != sourceAPI {
		return nil // the watched folder's: judged when it was read
	}
	text := p.orders[gossip.ID{Class: classPolicy, Key: x.store()}]
	if x.after != nil {
		text = []byte(x.after.Text)
	}
	rank, err := s.checkPolicy(x.slot, text)
	if err != nil || x.before == nil {
		return err
	}
	if before, err := s.checkPolicy(x.slot, []byte(x.before.Text)); err == nil && rank < before {
		return gossip.ErrOutranked
	}
	return nil
}
