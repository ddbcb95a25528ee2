package daemon

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/sign"
)

// Classes of the cluster's registers that say what is allowed. Their keys are a slot's, and a service's
// name or "*".
const (
	classPolicy = "policy"
	classMode   = "mode"
)

// signing says whose word changes what is allowed: on this node, and wherever it hears of it. The zero
// value takes everybody's.
type signing struct {
	trust    sign.Trust
	unsigned string // one of the unsigned constants; empty: accept
	cluster  string // documents for another one are refused
	tell     func(what string)
}

// newSigning reads what the configuration says of it; nil: this node is alone. tell is told of what is
// taken without a signature that should have one.
func newSigning(c *ClusterConfig, tell func(what string)) signing {
	if c == nil {
		return signing{}
	}
	var keys []ed25519.PublicKey
	for _, key := range c.Trust {
		keys = append(keys, ed25519.PublicKey(key))
	}
	return signing{trust: sign.TrustIn(keys...), unsigned: c.Unsigned, cluster: c.Name, tell: tell}
}

// asks says that signatures are looked at at all.
func (s signing) asks() bool { return !s.trust.Empty() || s.refuses() }

// refuses says that nothing changes without a trusted signature.
func (s signing) refuses() bool { return s.unsigned == unsignedRefuse }

// hash is the same on nodes that judge alike.
func (s signing) hash() []byte {
	if !s.asks() {
		return nil
	}
	return append(s.trust.Hash(), s.unsigned...)
}

var errNotSigned = errors.New("changes without a trusted signature are refused here (cluster.unsigned: refuse); see bulkhead policy sign --help")

// judge says with which rank a document is taken: later signatures are higher, none is 0. Errors: it is
// not taken.
func (s signing) judge(d *sign.Document) (uint64, error) {
	if !s.asks() {
		return 0, nil
	}
	sig, err := s.trust.VerifyDocument(d)
	switch {
	case err == nil && sig.Cluster != "" && sig.Cluster != s.cluster:
		return 0, fmt.Errorf("signed for cluster %q, this is %q", sig.Cluster, s.cluster)
	case err == nil:
		return sig.Serial(), nil
	case errors.Is(err, sign.ErrForged):
		return 0, err
	case s.refuses():
		return 0, fmt.Errorf("%w; %w", err, errNotSigned)
	}
	return 0, s.bare(err.Error())
}

// bare is for a change that no document comes with, or an unsigned one. Errors: it is refused.
func (s signing) bare(what string) error {
	switch {
	case s.refuses():
		return fmt.Errorf("%s; %w", what, errNotSigned)
	case s.unsigned == unsignedAlert && s.tell != nil:
		s.tell(what)
	}
	return nil
}

// checkRecord is [gossip.Config.Check]: nothing gets into a register of policies or modes that this node
// would not take from its own API.
func (s signing) checkRecord(rec gossip.Record) (uint64, error) {
	switch rec.Class {
	case classPolicy:
		at, err := parseSlot(rec.Key)
		if err != nil {
			return 0, err
		}
		return s.checkPolicy(at, rec.Value)
	case classMode:
		return s.checkMode(rec.Key, rec.Value)
	}
	return 0, nil
}

// checkPolicy judges what a slot is to hold; nil: nothing. Shadows deny nothing, and need no signature
// until they are to take force.
func (s signing) checkPolicy(at slot, text []byte) (uint64, error) {
	if at.shadow {
		return 0, nil
	}
	if text == nil {
		return 0, s.bare(fmt.Sprintf("removal of %s: not signed", at))
	}
	d, err := sign.Open(text)
	if err != nil {
		if !s.asks() {
			return 0, nil // who reads it says what is wrong with it
		}
		return 0, fmt.Errorf("%s: %w", at, err)
	}
	is, err := subject(d)
	if err != nil {
		return 0, err
	}
	// What is signed as a shadow must not take force.
	if is != at {
		return 0, fmt.Errorf("it is %s, written down as %s", is, at)
	}
	return s.judge(d)
}

// subject is the slot that a document is about: a policy's own, or the one that a removal empties.
func subject(d *sign.Document) (slot, error) {
	o, err := d.Order()
	switch {
	case err != nil:
		return slot{}, err
	case o == nil:
		key, shadow := d.Subject()
		return slot{key, shadow}, nil
	case o.Kind != sign.KindRemoval:
		return slot{}, fmt.Errorf("a %s where a policy or a removal is wanted", o.Kind)
	}
	return slotOfRemoval(o), nil
}

func slotOfRemoval(o *sign.Order) slot {
	return slot{policy.Key{Kind: o.Of, Namespace: o.Namespace, Name: o.Name}, o.Shadow}
}

func (s signing) checkMode(service string, value []byte) (uint64, error) {
	if service != allServices {
		if _, err := parseService(service); err != nil {
			return 0, err
		}
	}
	mode, d, err := readMode(service, value)
	if err != nil {
		return 0, err
	}
	if d == nil {
		return 0, s.bare(fmt.Sprintf("mode %s of %s: not signed", mode, service))
	}
	return s.judge(d)
}

// readMode reads a register of a mode: the word, or a signed document that says it. DefaultMode: the
// service has none of its own.
func readMode(service string, value []byte) (string, *sign.Document, error) {
	if value == nil {
		return sign.DefaultMode, nil, nil
	}
	if _, err := policy.ParseMode(string(value)); err == nil {
		return string(value), nil, nil
	}
	d, err := sign.Open(value)
	if err != nil {
		return "", nil, fmt.Errorf("mode of %s: %w", service, err)
	}
	o, err := d.Order()
	if err != nil {
		return "", nil, err
	}
	if o == nil || o.Kind != sign.KindMode || serviceOfMode(o) != service {
		return "", nil, fmt.Errorf("mode of %s: another document", service)
	}
	return o.Mode, d, nil
}

// serviceOfMode is the service that a mode is for, as requests name it.
func serviceOfMode(o *sign.Order) string {
	return strings.TrimPrefix(o.Namespace+"/"+o.Name, "/")
}

// registerPolicy gives the document that a register of class policy holds; false: the policy is gone.
func registerPolicy(rec gossip.Record) (string, bool) {
	if rec.Value == nil {
		return "", false
	}
	if o, err := sign.ReadOrder(rec.Value); err == nil && o != nil {
		return "", false
	}
	return string(rec.Value), true
}

// registerMode gives the mode that a register of class mode holds; nil: the service has none of its own.
func registerMode(rec gossip.Record) (*policy.Mode, error) {
	word, _, err := readMode(rec.Key, rec.Value)
	if err != nil || word == sign.DefaultMode {
		return nil, err
	}
	mode, err := policy.ParseMode(word)
	return &mode, err
}

// refusal is what the API's caller hears of a change that [signing] refused.
func refusal(err error) error {
	if errors.Is(err, errNotSigned) || errors.Is(err, sign.ErrForged) || errors.Is(err, sign.ErrUntrusted) {
		return api.Errorf(api.Denied, "%v", err)
	}
	if errors.Is(err, gossip.ErrOutranked) {
		return api.Errorf(api.Conflict, "%v; sign it anew: bulkhead policy sign --renew", err)
	}
	return err
}

// parseFile reads a file of the watched folder, and takes it whole or not at all.
func (s signing) parseFile(name string, data []byte) ([]policy.Policy, error) {
	list, err := policy.Parse(name, data)
	if err != nil || !s.asks() {
		return list, err
	}
	for i := range list {
		if _, err := s.checkPolicy(slotOf(&list[i]), []byte(list[i].Text)); err != nil {
			return nil, fmt.Errorf("%s: %w", list[i].Source, err)
		}
	}
	return list, nil
}

// lookAtTrust warns while other nodes judge signatures by other keys than this one: what one takes the
// other refuses, and they never hold the same.
func (c *cluster) lookAtTrust(members []gossip.Member) {
	mine := hex.EncodeToString(c.d.signing.hash())
	var differ []string
	for _, m := range members {
		if m.Node != c.d.cfg.Node && m.Status == gossip.Alive && m.Trust != mine {
			differ = append(differ, m.Node)
		}
	}
	text := ""
	if len(differ) > 0 {
		text = fmt.Sprintf("%d nodes have another cluster.trust or cluster.unsigned than this one (%s): make them the same everywhere", len(differ), differ[0])
	}
	c.d.warn("cluster trust", text)
}

// tellUnsigned tells people of a change that should have been signed and was taken.
func (d *Daemon) tellUnsigned(what string) {
	now := d.now()
	d.alerts.Send(alert.Alert{Kind: alert.Cluster, Severity: alert.High, Time: now, First: now, Last: now, Count: 1, Node: d.cfg.Node,
		Client: alert.Party{Service: "node"}, Verdict: policy.Alert, Reason: "taken although no trusted key has signed it: " + what,
		Advice: "sign it (bulkhead policy sign), and set cluster.unsigned: refuse when everything is signed"})
}

// clusterAlarm tells people of what a member of the cluster tried.
func (d *Daemon) clusterAlarm(a gossip.Alarm) {
	d.alerts.Send(alert.Misconduct{Time: d.now(), Other: a.Node, What: a.What, Count: uint64(a.More) + 1,
		Mistaken: a.Kind == gossip.AlarmNameClash || a.Kind == gossip.AlarmImpostor || a.Kind == gossip.AlarmFull}.Alert(d.cfg.Node))
}
