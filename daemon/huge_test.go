package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// many is a file of policies.
func many(from, to int) api.File {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "---\nkind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p%d, namespace: n%d}\nspec: {podSelector: {}}\n", i, i%100)
	}
	return api.File{Name: fmt.Sprintf("p%d.yaml", from), Data: b.String()}
}

// TestHugeFileSets: a set of files is one change, however large: it is taken whole in bounded time, or
// refused whole with the reason.
func TestHugeFileSets(t *testing.T) {
	now := time.Now()
	d := quiet(t, t.TempDir(), &now)
	d.store.db.NoSync = true
	count := func(want int) {
		t.Helper()
		if got := len(d.rules.Load().held); got != want || d.rules.Load().set.Len() != want {
			t.Fatalf("%d policies held, want %d", got, want)
		}
	}
	begin := time.Now()
	r, err := d.Apply(ctx, api.ApplyRequest{Files: []api.File{many(0, 10_000), many(10_000, 20_000)}})
	if err != nil || len(r.Created) != maxPolicies {
		t.Fatalf("%d policies: %d created, %v", maxPolicies, len(r.Created), err)
	}
	t.Logf("%d policies: %v", maxPolicies, time.Since(begin))
	count(maxPolicies)

	mistake := many(20_000, 20_001)
	mistake.Data = strings.Replace(mistake.Data, "podSelector: {}", "podSelector: {}, ingress: [{ports: [{port: 70000}]}]", 1)
	big := strings.Repeat("---\n# "+strings.Repeat("x", 2<<20)+"\n", 5) + many(0, 1).Data
	for _, c := range []struct {
		what  string
		files []api.File
		want  string
	}{
		{"one more", []api.File{many(20_000, 20_001)}, "20001 policies, bound 20000; nothing was changed"},
		{"too many in a file", []api.File{many(0, 25_000)}, "p0.yaml: more than 20000 policies with the files before it; nothing was changed"},
		{"a mistake in the last file", []api.File{many(0, 3000), mistake}, "p20000.yaml:5:"},
		{"10 MB, and a policy twice", []api.File{{Name: "big.yaml", Data: big}, many(0, 1)}, "p0.yaml:2: NetworkPolicy n0/p0 is defined already at big.yaml:"},
		{"more than a file may have", []api.File{{Name: "huge.yaml", Data: strings.Repeat("#\n", 9<<20)}}, "huge.yaml:1:1: 18874368 bytes, bound 16777216"},
	} {
		begin := time.Now()
		_, err := d.Apply(ctx, api.ApplyRequest{Files: c.files})
		if !api.HasCode(err, api.BadRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.300v; want %s", c.what, err, c.want)
		}
		t.Logf("%s: %v", c.what, time.Since(begin))
	}
	if n := d.generation.Load(); n != 1 {
		t.Errorf("generation %d", n)
	}
	count(maxPolicies)

	begin = time.Now()
	r, err = d.Apply(ctx, api.ApplyRequest{Do: api.DoDelete, Files: []api.File{many(0, 10_000), many(10_000, 20_000)}})
	if err != nil || len(r.Removed) != maxPolicies {
		t.Fatalf("deleted: %d, %v", len(r.Removed), err)
	}
	t.Logf("deleted: %v", time.Since(begin))
	begin = time.Now()
	if _, err = d.Apply(ctx, api.ApplyRequest{Do: api.DoRollback}); err != nil {
		t.Fatal(err)
	}
	t.Logf("rolled back: %v", time.Since(begin))
	count(maxPolicies)
}
