package daemon

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/sign"
)

// signer is somebody who signs, at times that a test says.
type signer ed25519.PrivateKey

func newSigner(fill byte) signer {
	return signer(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{fill}, ed25519.SeedSize)))
}

func (s signer) public() PublicKey {
	return PublicKey(ed25519.PrivateKey(s).Public().(ed25519.PublicKey))
}

func (s signer) at(t testing.TB, hour int, text string) string {
	t.Helper()
	out, _, err := sign.Text([]byte(text), ed25519.PrivateKey(s), time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC), true)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func (s signer) order(t testing.TB, hour int, o sign.Order) string {
	return s.at(t, hour, string(o.Text()))
}

const cartPolicy = `apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata:
  name: cart
  namespace: shop
spec:
  podSelector: {}
  ingress: []
`

// What a register may hold, by who signed it and by what the node asks for.
func TestCheckRecord(t *testing.T) {
	team, other := newSigner(1), newSigner(2)
	cart := gossip.ID{Class: classPolicy, Key: "Policy/shop/cart"}
	shadow := gossip.ID{Class: classPolicy, Key: "Policy/shop/cart/shadow"}
	mode := gossip.ID{Class: classMode, Key: "shop/cart"}
	all := gossip.ID{Class: classMode, Key: allServices}
	enforce := sign.Order{Kind: sign.KindMode, Namespace: "shop", Name: "cart", Mode: "enforce"}
	removal := sign.Order{Kind: sign.KindRemoval, Of: "Policy", Namespace: "shop", Name: "cart"}
	forged := strings.Replace(team.at(t, 1, cartPolicy), "ingress: []", "ingress: [{}]", 1)
	elsewhere := strings.Replace(cartPolicy, "  name: cart\n", "  name: cart\n  annotations: {bulkhead.dev/cluster: other}\n", 1)
	asShadow := strings.Replace(cartPolicy, "spec:\n", "spec:\n  mode: shadow\n", 1)
	hour := func(n int) uint64 { return uint64(time.Date(2026, 1, 1, n, 0, 0, 0, time.UTC).UnixMilli()) }
	const no = ^uint64(0)
	for _, c := range []struct {
		name  string
		id    gossip.ID
		value string // "": deleted
		// The rank that it has, or no: refused.
		accept, alert, refuse uint64
	}{
		{"signed", cart, team.at(t, 3, cartPolicy), 0, hour(3), hour(3)},
		{"unsigned", cart, cartPolicy, 0, 0, no},
		{"another's signature", cart, other.at(t, 3, cartPolicy), 0, 0, no},
		{"changed since", cart, forged, 0, no, no},
		{"for another cluster", cart, team.at(t, 3, elsewhere), 0, no, no},
		{"deleted", cart, "", 0, 0, no},
		{"signed removal", cart, team.order(t, 4, removal), 0, hour(4), hour(4)},
		{"removal of another", cart, team.order(t, 4, sign.Order{Kind: sign.KindRemoval, Of: "Policy", Namespace: "shop", Name: "web"}), no, no, no},
		{"a mode where a policy is", cart, team.order(t, 4, enforce), no, no, no},
		{"another policy's document", cart, team.at(t, 3, strings.Replace(cartPolicy, "name: cart", "name: web", 1)), no, no, no},
		{"of another namespace", cart, team.at(t, 3, strings.Replace(cartPolicy, "shop", "bank", 1)), no, no, no},
		{"a shadow that is to take force", cart, team.at(t, 3, asShadow), no, no, no},
		{"no document", cart, "kind: [", 0, no, no},
		{"a shadow, unsigned", shadow, asShadow, 0, 0, 0},
		{"no slot", gossip.ID{Class: classPolicy, Key: "cart"}, cartPolicy, no, no, no},

		{"signed mode", mode, team.order(t, 5, enforce), 0, hour(5), hour(5)},
		{"mode of all", all, team.order(t, 5, sign.Order{Kind: sign.KindMode, Name: allServices, Mode: "learn"}), 0, hour(5), hour(5)},
		{"unsigned mode", mode, "learn", 0, 0, no},
		{"mode taken back", mode, "", 0, 0, no},
		{"another service's mode", mode, team.order(t, 5, sign.Order{Kind: sign.KindMode, Namespace: "shop", Name: "web", Mode: "learn"}), no, no, no},
		{"no mode", mode, "off", no, no, no},
		{"no service", gossip.ID{Class: classMode, Key: "cart"}, "learn", no, no, no},
		{"something of a later version", gossip.ID{Class: "later", Key: "x"}, "x", 0, 0, 0},
	} {
		for unsigned, want := range map[string]uint64{unsignedAccept: c.accept, unsignedAlert: c.alert, unsignedRefuse: c.refuse} {
			told := 0
			conf := &ClusterConfig{Name: "test", Unsigned: unsigned, Trust: []PublicKey{team.public()}}
			if unsigned == unsignedAccept {
				conf.Trust = nil
			}
			s := newSigning(conf, func(string) { told++ })
			rec := gossip.Record{Class: c.id.Class, Key: c.id.Key, Value: []byte(c.value)}
			if c.value == "" {
				rec.Value = nil
			}
			rank, err := s.checkRecord(rec)
			if err != nil {
				rank = no
			}
			if rank != want {
				t.Errorf("%s, unsigned: %s: rank %d, want %d (%v)", c.name, unsigned, rank, want, err)
			}
			if asks := unsigned == unsignedAlert && want == 0 && c.id != shadow && c.id.Class != "later"; (told > 0) != asks {
				t.Errorf("%s, unsigned: %s: people were told %d times", c.name, unsigned, told)
			}
		}
	}
}

// A node on its own asks for no signatures.
func TestAloneNothingIsSigned(t *testing.T) {
	s := newSigning(nil, nil)
	if rank, err := s.checkPolicy(slot{Key: policy.Key{Kind: "Policy", Namespace: "shop", Name: "cart"}}, []byte(cartPolicy)); rank != 0 || err != nil {
		t.Error(rank, err)
	}
	if s.hash() != nil || s.asks() || s.refuses() {
		t.Error("it asks")
	}
}

// Orders are taken out of files; what is left keeps its lines, for messages.
func TestTakeOrders(t *testing.T) {
	mode := string(sign.Order{Kind: sign.KindMode, Namespace: "shop", Name: "cart", Mode: "enforce"}.Text())
	removal := string(sign.Order{Kind: sign.KindRemoval, Of: "Policy", Namespace: "shop", Name: "web"}.Text())
	in := []api.File{{Name: "a.yaml", Data: mode + "---\n" + cartPolicy + "---\n" + removal}}
	rest, orders, err := takeOrders(in)
	if err != nil || len(orders) != 2 || orders[0].Mode != "enforce" || orders[1].Name != "web" {
		t.Fatal(orders, err)
	}
	list, err := policy.Parse(rest[0].Name, []byte(rest[0].Data))
	if err != nil || len(list) != 1 || list[0].Source != fmt.Sprintf("a.yaml:%d", strings.Count(mode, "\n")+2) {
		t.Errorf("%v, %v", list, err)
	}
	if _, _, err := takeOrders([]api.File{{Name: "b.yaml", Data: strings.Replace(mode, "enforce", "off", 1)}}); err == nil || !strings.HasPrefix(err.Error(), "b.yaml: Mode: spec.mode") {
		t.Error(err)
	}
}

// Where signatures are asked for, all that changes what is allowed needs one, on whichever node it is
// said; and what holds is not undone by what was signed before it.
func TestClusterSigned(t *testing.T) {
	l := newClusterLab(t, 2)
	team := newSigner(7)
	trust := fmt.Sprintf("trust: [%s]", sign.FormatPublic(ed25519.PublicKey(team.public())))
	a, b := l.start(0, trust), l.start(1, trust)
	file := func(text string) api.ApplyRequest {
		return api.ApplyRequest{Files: []api.File{{Name: "a.yaml", Data: text}}, Wait: "20s"}
	}
	refused := func(what string, d *process, r api.ApplyRequest, want string) {
		t.Helper()
		_, err := d.client.Apply(ctx, r)
		var answer *api.Error
		if !errors.As(err, &answer) || answer.Code != api.Denied && answer.Code != api.Conflict || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	cart := func(peer string) string {
		return strings.Replace(allowing("cart", peer).Data, "kind:", "kind:", 1)
	}
	refused("unsigned", a, file(cart("web")), "not signed")
	wantNodes(t, a.do(file(team.at(t, 1, cart("web")))), 1)
	l.agree("signed", "cart=web", a, b)
	wantNodes(t, b.do(file(team.at(t, 2, cart("shop")))), 1)
	l.agree("signed later", "cart=shop", a, b)
	refused("an old version", a, file(team.at(t, 1, cart("web"))), "later signature")
	refused("a deletion", b, api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "cart"}}}, "not signed")
	refused("a rollback", a, api.ApplyRequest{Do: api.DoRollback}, "later signature")
	if _, err := a.client.SetMode(ctx, api.ServiceMode{Service: "*", Mode: "enforce"}); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("a mode: %v", err)
	}
	a.do(file(team.order(t, 3, sign.Order{Kind: sign.KindMode, Namespace: "default", Name: "cart", Mode: "enforce"})))
	eventually(t, 20*time.Second, "b has the mode", func() error {
		modes, err := b.client.Modes(ctx)
		if err == nil && !strings.Contains(fmt.Sprint(modes), "default/cart enforce") {
			err = fmt.Errorf("%v", modes)
		}
		return err
	})
	key, err := parsePolicyKey(t, cart("web"))
	if err != nil {
		t.Fatal(err)
	}
	a.do(file(team.order(t, 4, sign.Order{Kind: sign.KindRemoval, Of: key.Kind, Namespace: key.Namespace, Name: key.Name})))
	l.agree("a signed removal", "", a, b)
	refused("what was removed", b, file(team.at(t, 2, cart("shop"))), "later signature")
	l.agree("it stays gone", "", a, b)
}

func parsePolicyKey(t *testing.T, text string) (policy.Key, error) {
	t.Helper()
	list, err := policy.Parse("x", []byte(text))
	if err != nil {
		return policy.Key{}, err
	}
	return list[0].Key(), nil
}
