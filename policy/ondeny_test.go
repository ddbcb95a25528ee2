package policy

import "testing"

// TestOnDeny: a side has one manner. Where policies that deny there differ, the one that tells less
// holds; a policy that denies nothing there has no say.
func TestOnDeny(t *testing.T) {
	isolates := func(o OnDeny, types string) string {
		return `{onDeny: "` + o.String() + `", podSelector: {}, policyTypes: [` + types + `]}`
	}
	for _, c := range []struct {
		name            string
		specs           []string
		egress, ingress OnDeny
	}{
		{"nothing said", []string{isolates(OnDenyDefault, "Ingress, Egress")}, OnDenyDefault, OnDenyDefault},
		{"reject", []string{isolates(Reject, "Ingress, Egress")}, Reject, Reject},
		{"one direction", []string{isolates(Reject, "Egress"), isolates(OnDenyDefault, "Ingress")}, Reject, OnDenyDefault},
		{"drop tells less", []string{isolates(Reject, "Egress"), isolates(Drop, "Egress")}, Drop, OnDenyDefault},
		{"said beside not said", []string{isolates(OnDenyDefault, "Egress"), isolates(Reject, "Egress")}, Reject, OnDenyDefault},
		{"a denying rule", []string{`{onDeny: Reject, podSelector: {}, egress: [{action: Deny, to: [{network: world}]}]}`}, Reject, OnDenyDefault},
		{"only allows beside", []string{isolates(Reject, "Egress"), `{onDeny: Drop, podSelector: {}, policyTypes: [Ingress], ingress: [{}]}`}, Reject, Drop},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []Policy
			for i, spec := range c.specs {
				all = append(all, parsed(t, netpol(KindPolicy, string(rune('a'+i)), spec))...)
			}
			s, err := NewSet(all...)
			if err != nil {
				t.Fatal(err)
			}
			v := town()
			w := v.Find("default", "db")
			sides := s.Entries(v, w)
			if sides.Egress.OnDeny != c.egress || sides.Ingress.OnDeny != c.ingress {
				t.Errorf("egress %q, ingress %q; want %q, %q", sides.Egress.OnDeny, sides.Ingress.OnDeny, c.egress, c.ingress)
			}
			for _, p := range all {
				text, err := Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				if back := parsed(t, string(text)); back[0].Spec.OnDeny != p.Spec.OnDeny {
					t.Errorf("%q was written and read as %q", p.Spec.OnDeny, back[0].Spec.OnDeny)
				}
			}
		})
	}
}

// TestOnDenyAnnotation: kinds without the field have an annotation for it, read and written.
func TestOnDenyAnnotation(t *testing.T) {
	text := `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: default, annotations: {bulkhead.dev/on-deny: Reject}}
spec: {podSelector: {}}`
	p := parsed(t, text)[0]
	if p.Spec.OnDeny != Reject {
		t.Fatalf("onDeny %q", p.Spec.OnDeny)
	}
	p.Spec.OnDeny = Drop
	out, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if back := parsed(t, string(out))[0]; back.Spec.OnDeny != Drop {
		t.Errorf("Drop was written and read as %q:\n%s", back.Spec.OnDeny, out)
	}
	if _, err := Parse("x.yaml", []byte(text[:len(text)-len("Reject}}\nspec: {podSelector: {}}")]+"Refuse}}\nspec: {podSelector: {}}")); err == nil {
		t.Error("Refuse was taken")
	}
}
