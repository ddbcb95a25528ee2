package sign

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

var moment = time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.UTC)

func keyOf(fill byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{fill}, ed25519.SeedSize))
}

func trusting(t testing.TB, keys ...ed25519.PrivateKey) Trust {
	t.Helper()
	var list []string
	for _, k := range keys {
		list = append(list, FormatPublic(k.Public().(ed25519.PublicKey)))
	}
	trust, err := NewTrust(list)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

const cart = `# Who may talk to the cart.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: cart   # one per service
  namespace: shop
spec:
  podSelector: {matchLabels: {app: cart}}
  policyTypes: [Ingress]
  ingress:
    # the shop's front
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{protocol: TCP, port: 80}]
`

// The signature is one more line or two; a reviewer sees nothing else change.
func TestSignKeepsTheFile(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"no annotations": {cart, strings.Replace(cart, "  namespace: shop\n", "  annotations:\n    bulkhead.dev/signature: SIG\n  namespace: shop\n", 1)},
		"annotations": {strings.Replace(cart, "  namespace: shop\n", "  annotations:\n    team: a\n", 1),
			strings.Replace(cart, "  namespace: shop\n", "  annotations:\n    bulkhead.dev/signature: SIG\n    team: a\n", 1)},
		"signed before": {strings.Replace(cart, "  namespace: shop\n", "  annotations:\n      bulkhead.dev/signature: v1,x,y,z\n", 1),
			strings.Replace(cart, "  namespace: shop\n", "  annotations:\n      bulkhead.dev/signature: SIG\n", 1)},
		"two documents, one empty": {"---\n" + cart + "---\n# nothing\n", "---\n" + strings.Replace(cart, "  namespace: shop\n", "  annotations:\n    bulkhead.dev/signature: SIG\n  namespace: shop\n", 1) + "---\n# nothing\n"},
		"name last, no newline":    {"kind: Policy\nmetadata:\n  name: x", "kind: Policy\nmetadata:\n  name: x\n  annotations:\n    bulkhead.dev/signature: SIG\n"},
		"braces":                   {"{kind: Policy, metadata: {name: x}}\n", "{kind: Policy, metadata: {name: x, \"annotations\": {\"bulkhead.dev/signature\": SIG}}}\n"},
	} {
		out, n, err := File([]byte(c.in), keyOf(1), moment, false)
		if err != nil || n != 1 {
			t.Errorf("%s: %d signed, %v", name, n, err)
			continue
		}
		sig := ""
		for _, part := range strings.Split(string(out), "---\n") {
			if s, err := Read([]byte(part)); err == nil {
				sig = s.String()
				if !s.At.Equal(moment.Truncate(time.Millisecond)) {
					t.Errorf("%s: signed at %v", name, s.At)
				}
			}
		}
		if got := strings.Replace(string(out), `"`+sig+`"`, "SIG", 1); sig == "" || got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, out, c.want)
		}
		again, n, err := File(out, keyOf(1), moment.Add(time.Hour), false)
		if err != nil || n != 0 || !bytes.Equal(again, out) {
			t.Errorf("%s: signed again it changed: %d, %v\n%s", name, n, err, again)
		}
	}
}

func signed(t testing.TB, text string, key ed25519.PrivateKey) string {
	t.Helper()
	out, _, err := Text([]byte(text), key, moment, false)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// What git, kubectl and an API server do to a document leaves its signature good; every change of what it
// says does not.
func TestVerify(t *testing.T) {
	good := signed(t, cart, keyOf(1))
	asJSON, err := yaml.YAMLToJSON([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	sorted, err := yaml.JSONToYAML(asJSON)
	if err != nil {
		t.Fatal(err)
	}
	other := signed(t, strings.Replace(cart, "name: cart", "name: other", 1), keyOf(1))
	otherSig, err := Read([]byte(other))
	if err != nil {
		t.Fatal(err)
	}
	goodSig, err := Read([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	later := goodSig
	later.At = later.At.Add(time.Hour)
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"as signed", good, nil},
		{"as JSON", string(asJSON), nil},
		{"keys sorted, comments gone", string(sorted), nil},
		{"other layout", strings.Replace(good, "policyTypes: [Ingress]", "policyTypes:\n  - 'Ingress'", 1), nil},
		{"read back from an API server", strings.Replace(good, "metadata:\n", "metadata:\n  uid: 1-2\n  resourceVersion: \"7\"\n  generation: 1\n  creationTimestamp: \"2026-03-01T12:00:00Z\"\n  managedFields: [{manager: kubectl}]\n", 1), nil},
		{"kubectl's note", strings.Replace(good, "  annotations:\n", "  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: '{}'\n", 1), nil},
		{"nothing is not a value", strings.Replace(good, "spec:\n", "spec:\n  egress: null\n", 1), nil},

		{"unsigned", cart, ErrUnsigned},
		{"another key's", signed(t, cart, keyOf(2)), ErrUntrusted},
		{"port changed", strings.Replace(good, "port: 80", "port: 81", 1), ErrForged},
		{"port as text", strings.Replace(good, "port: 80", `port: "80"`, 1), ErrForged},
		{"namespace changed", strings.Replace(good, "namespace: shop", "namespace: bank", 1), ErrForged},
		{"namespace gone", strings.Replace(good, "  namespace: shop\n", "", 1), ErrForged},
		{"rule gone", good[:strings.Index(good, "  ingress:")], ErrForged},
		{"rule added", good + "    - {}\n", ErrForged},
		{"annotation added", strings.Replace(good, "  annotations:\n", "  annotations:\n    bulkhead.dev/mode: shadow\n", 1), ErrForged},
		{"another document's signature", strings.Replace(good, goodSig.String(), otherSig.String(), 1), ErrForged},
		{"made younger", strings.Replace(good, goodSig.String(), later.String(), 1), ErrForged},
		{"time written otherwise", strings.Replace(good, "12:00:00.123Z", "12:00:00.123+00:00", 1), ErrForged},
		{"cut off", strings.Replace(good, goodSig.String(), goodSig.String()[:60], 1), ErrForged},
	} {
		if _, err := trusting(t, keyOf(1)).Verify([]byte(c.text)); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// What could be read in two ways is not signed at all.
func TestNotSigned(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"metadata: {name: a}\nkind: &k Policy\nspec: *k\n", "line 3: an alias: a signed document writes everything out"},
		{"metadata: {name: a}\nspec: {<<: {a: b}}\n", "line 2: a key that is no string: a signed document writes everything out"},
		{"metadata: {name: a, name: b}\n", `line 1: "name" is given twice`},
		{"metadata: {name: a}\nx: 1.5\n", "line 2: a value of type !!float: no policy has one"},
		{"metadata: {name: a}\nx: 99999999999999999999\n", `line 2: a value of type !!float: no policy has one`},
		{"metadata: {name: a}\nx: !!binary aGk=\n", "line 2: a value of type !!binary: no policy has one"},
		{"metadata: {name: a}\n...\nmetadata: {name: b}\n", "two documents without --- between them"},
		{"- a\n", "want a policy, got no mapping"},
		{"kind: Policy\n", "metadata is missing"},
		{"kind: NetworkPolicyList\nmetadata: {}\nitems: []\n", "a NetworkPolicyList: sign its items as documents of their own"},
		{"metadata: {annotations: x}\n", "metadata.annotations: want keys with values"},
		{"a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "\nmetadata: {}\n", "line 1: values nested more than 64 deep"},
	} {
		if _, _, err := Text([]byte(c.text), keyOf(1), moment, false); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
}

// A new signature is later than the one it replaces, whatever the clock says.
func TestSerialOnlyGrows(t *testing.T) {
	first := signed(t, cart, keyOf(1))
	edited := strings.Replace(first, "port: 80", "port: 443", 1)
	out, changed, err := Text([]byte(edited), keyOf(1), moment.Add(-48*time.Hour), false)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	a, _ := Read([]byte(first))
	b, err := trusting(t, keyOf(1)).Verify(out)
	if err != nil || b.Serial() != a.Serial()+1 {
		t.Errorf("serial %d after %d, %v", b.Serial(), a.Serial(), err)
	}
}

func TestOrders(t *testing.T) {
	for _, o := range []Order{
		{Kind: KindRemoval, Namespace: "shop", Name: "cart", Of: "Policy"},
		{Kind: KindRemoval, Name: "admins", Of: "ClusterNetworkPolicy", Shadow: true},
		{Kind: KindMode, Namespace: "shop", Name: "cart", Mode: "enforce"},
		{Kind: KindMode, Name: "*", Mode: DefaultMode},
	} {
		text := signed(t, string(o.Text()), keyOf(1))
		if _, err := trusting(t, keyOf(1)).Verify([]byte(text)); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
		got, err := ReadOrder([]byte(text))
		if err != nil || got == nil || *got != o {
			t.Errorf("got %+v, %v, want %+v", got, err, o)
		}
	}
	if o, err := ReadOrder([]byte(cart)); o != nil || err != nil {
		t.Errorf("a policy is an order: %+v, %v", o, err)
	}
	for text, want := range map[string]string{
		"kind: Mode\nmetadata: {name: a}\nspec: {mode: 'off'}\n":                    `Mode: spec.mode "off": want learn, alert, enforce or default`,
		"kind: Removal\nmetadata: {name: a}\nspec: {kind: Policy, all: true}\n":     `Removal: spec.all: unknown field; known are kind, shadow`,
		"kind: Removal\nmetadata: {name: a}\nspec: {}\n":                            `Removal: spec.kind: want the kind of the policy that goes`,
		"kind: Removal\nmetadata: {namespace: a}\nspec: {kind: Policy}\n":           `Removal: metadata.name: missing`,
		"kind: Removal\nmetadata: {name: a}\nspec: {kind: Policy}\nwhen: tonight\n": `Removal: when: unknown field; known are apiVersion, kind, metadata, spec`,
	} {
		if _, err := ReadOrder([]byte("apiVersion: bulkhead.dev/v1alpha1\n" + text)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	text, err := FormatPrivate(keyOf(3))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivate(text)
	if err != nil || !key.Equal(keyOf(3)) {
		t.Errorf("%v", err)
	}
	if _, err := ParsePrivate([]byte("hello")); err == nil {
		t.Error("no key was read")
	}
	if _, err := NewTrust([]string{FormatPublic(keyOf(1).Public().(ed25519.PublicKey)), "x"}); err == nil || !strings.HasPrefix(err.Error(), "trust: key 2: not an ed25519 public key") {
		t.Errorf("%v", err)
	}
}

// Whatever is signed is what is read: a document that verifies says what was signed, in any layout.
func FuzzSign(f *testing.F) {
	f.Add([]byte(cart))
	f.Add([]byte("{kind: Policy, metadata: {name: x, annotations: {a: b}}}"))
	f.Add(Order{Kind: KindMode, Name: "*", Mode: "learn"}.Text())
	f.Add([]byte(signed(f, cart, keyOf(1))))
	trust := trusting(f, keyOf(1))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = ReadOrder(text)
		_, _ = trust.Verify(text)
		out, _, err := Text(text, keyOf(1), moment, true)
		if err != nil {
			return
		}
		if _, err := trust.Verify(out); err != nil {
			t.Fatalf("%q: signed as %q: %v", text, out, err)
		}
		before, err := Open(text)
		if err != nil {
			t.Fatal(err)
		}
		after, err := Open(out)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := before.canonical()
		b, _ := after.canonical()
		if !bytes.Equal(a, b) {
			t.Fatalf("signing changed what it says: %s, then %s", a, b)
		}
	})
}
