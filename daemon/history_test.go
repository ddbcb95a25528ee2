package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// allowing is a policy of shop that lets an app into cart, as one text per app.
func allowing(name, app string) api.File {
	return api.File{Name: name + ".yaml", Data: fmt.Sprintf(`# who may: %[2]s
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %[1]s, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress: [{from: [{podSelector: {matchLabels: {app: %[2]s}}}]}]
`, name, app)}
}

func (p *process) do(r api.ApplyRequest) api.ApplyResult {
	p.n.t.Helper()
	out, err := p.client.Apply(ctx, r)
	p.n.must(err)
	return out
}

// refuses wants a request to be refused with a code and words.
func (p *process) refuses(r api.ApplyRequest, code string, words ...string) {
	p.n.t.Helper()
	_, err := p.client.Apply(ctx, r)
	if !api.HasCode(err, code) {
		p.n.t.Fatalf("%+v: %v; want %s", r, err, code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			p.n.t.Errorf("%+v: %v; want %q in it", r, err, w)
		}
	}
}

// rows is what is in force: "shop/a web" for each policy, by the app that it lets in.
func (p *process) rows() string {
	p.n.t.Helper()
	list, err := p.client.Policies(ctx)
	p.n.must(err)
	var out []string
	for _, x := range list {
		app, _, _ := strings.Cut(strings.TrimPrefix(x.YAML, "# who may: "), "\n")
		if x.Mode == "shadow" {
			app += "?"
		}
		out = append(out, x.Name+"="+app)
	}
	return strings.Join(out, " ")
}

func (p *process) wantRows(when, want string) {
	p.n.t.Helper()
	if got := p.rows(); got != want {
		p.n.t.Errorf("%s: in force %q, want %q", when, got, want)
	}
}

func number64(n uint64) *uint64 { return &n }

// TestHistory: every change is a generation with its author; any kept one can be gone back to, by a new
// generation.
func TestHistory(t *testing.T) {
	n := newNode(t)
	d := n.start()
	d.do(api.ApplyRequest{Files: []api.File{allowing("a", "web"), allowing("b", "web")}, Message: "first"}) // 1
	d.do(api.ApplyRequest{Files: []api.File{allowing("a", "ad")}})                                          // 2
	if r := d.do(api.ApplyRequest{Files: []api.File{allowing("a", "ad")}}); r.Generation != 2 {
		t.Errorf("the same again: %+v; want no generation of its own", r)
	}
	d.mode("shop/cart", "alert")                                                                              // 3
	d.do(api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "a"}}})                            // 4
	d.do(api.ApplyRequest{Files: []api.File{allowing("c", "web")}, Mode: "enforce", Services: []string{"*"}}) // 5
	d.wantRows("before", "b=web c=web")

	d.kill()
	d = n.start()
	list, err := d.client.History(ctx, 0)
	n.must(err)
	var got []string
	for _, g := range list {
		got = append(got, fmt.Sprintf("%d %s +%d ~%d -%d m%d", g.Number, g.Cause, g.Created, g.Changed, g.Removed, g.Modes))
		if g.UID == nil || *g.UID != uint32(os.Geteuid()) || g.PID != int32(os.Getpid()) || !strings.Contains(g.Who, fmt.Sprintf("(pid %d)", os.Getpid())) {
			t.Errorf("author of %+v", g)
		}
	}
	want := "5 apply +1 ~0 -0 m2, 4 delete +0 ~0 -1 m0, 3 mode +0 ~0 -0 m1, 2 apply +0 ~1 -0 m0, 1 apply +2 ~0 -0 m0"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("history\n%s\nwant\n%s", s, want)
	}
	if list[4].Message != "first" || strings.Join(list[4].Files, " ") != "a.yaml b.yaml" {
		t.Errorf("first: %+v", list[4])
	}
	one, err := d.client.Generation(ctx, 4)
	if err != nil || len(one.Changes) != 1 || one.Changes[0] != (api.GenerationChange{Name: "NetworkPolicy shop/a", What: "removed", File: "a.yaml:2"}) {
		t.Errorf("generation 4: %+v, %v", one, err)
	}

	// Preview, then back: policies and modes of then, as generation 6.
	p, err := d.client.Preview(ctx, api.ApplyRequest{Do: api.DoRollback, Generation: number64(2)})
	if err != nil || strings.Join(p.Created, " ") != "NetworkPolicy shop/a" || strings.Join(p.Removed, " ") != "NetworkPolicy shop/c" ||
		strings.Join(p.Modes, "; ") != "all other services: enforce → learn" {
		t.Errorf("preview: %+v, %v", p, err)
	}
	if r := d.do(api.ApplyRequest{Do: api.DoRollback, Generation: number64(2)}); r.Generation != 6 {
		t.Errorf("rolled back: %+v", r)
	}
	d.wantRows("back at 2", "a=ad b=web")
	d.do(api.ApplyRequest{Do: api.DoRollback}) // undoes the rollback
	d.wantRows("back at 5", "b=web c=web")
	d.do(api.ApplyRequest{Do: api.DoRollback, Generation: number64(0)})
	d.wantRows("back at 0", "")
	d.do(api.ApplyRequest{Do: api.DoRollback, Generation: number64(1)})
	d.wantRows("back at 1", "a=web b=web")
	d.refuses(api.ApplyRequest{Do: api.DoRollback, Generation: number64(99)}, api.NotFound, "generation 99: the newest is 9")
}

// TestHistoryAndFiles: the watched folder's files are the truth of their policies: no rollback goes
// round them.
func TestHistoryAndFiles(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.dir, "policies", "a.yaml")
	write := func(app string) { n.must(os.WriteFile(file, []byte(allowing("a", app).Data), 0o600)) }
	write("web")
	d := n.start() // 1: policyDir
	d.do(api.ApplyRequest{Files: []api.File{allowing("b", "web")}})
	d.do(api.ApplyRequest{Files: []api.File{allowing("b", "ad")}})
	d.do(api.ApplyRequest{Do: api.DoRollback, Generation: number64(2)}) // no file in between
	d.wantRows("back at 2", "a=web b=web")
	write("ad")
	eventually(t, 5*time.Second, "the file's change", func() error {
		if d.rows() != "a=ad b=web" {
			return errNot
		}
		return nil
	})
	d.refuses(api.ApplyRequest{Do: api.DoRollback}, api.Conflict, "NetworkPolicy shop/a was different, and "+file+" holds it")
	d.refuses(api.ApplyRequest{Do: api.DoRollback, Generation: number64(1)}, api.Conflict, file, "--keep-files")
	r := d.do(api.ApplyRequest{Do: api.DoRollback, Generation: number64(1), KeepFiles: true})
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], file) {
		t.Errorf("kept: %+v", r)
	}
	d.wantRows("back at 1 but for files", "a=ad")
	n.must(os.Remove(file))
	eventually(t, 5*time.Second, "the file's end", func() error {
		if d.rows() != "" {
			return errNot
		}
		return nil
	})
	d.refuses(api.ApplyRequest{Do: api.DoRollback}, api.Conflict, "was held by "+file+", which has it no more")

	// What changes in the folder while no daemon runs is a generation as well.
	d.kill()
	write("late")
	d = n.start()
	list, err := d.client.History(ctx, 1)
	if err != nil || list[0].Cause != "policyDir" || list[0].Created != 1 || list[0].Who != "bulkheadd" || list[0].UID != nil {
		t.Errorf("newest: %+v, %v", list, err)
	}
}

// TestHistoryBound: the history keeps 100 generations, a text once however often it comes back, and
// nothing that no generation names.
func TestHistoryBound(t *testing.T) {
	s := openStore(t, t.TempDir())
	s.db.NoSync = true // 162 changes
	const policies, generations = 1000, 150
	texts := [2]string{strings.Repeat("a", 1000), strings.Repeat("b", 1000)}
	text := func(i, flip int) string { return fmt.Sprintf("%s of %d", texts[flip%2], i) }
	for g := 1; g <= generations; g++ {
		c := Change{Put: map[string]StoredPolicy{}, Texts: map[Hash]string{}, Generation: &StoredGeneration{Number: uint64(g)}}
		for i := g % 10; i < policies; i += 10 { // a tenth of all in each generation, back and forth
			key := fmt.Sprintf("Policy/shop/p%d", i)
			before, after := text(i, g/10), text(i, g/10+1)
			c.Put[key] = StoredPolicy{Text: after}
			c.Texts[hashOf(before)] = before
			c.Generation.Changes = append(c.Generation.Changes, StoredChange{Slot: key,
				Before: &StoredState{Text: hashOf(before), From: sourceAPI}, After: &StoredState{Text: hashOf(after), From: sourceAPI}})
		}
		if err := s.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	count, oldest := 0, uint64(0)
	if err := s.Generations(func(g StoredGeneration) bool { count, oldest = count+1, g.Number; return true }); err != nil {
		t.Fatal(err)
	}
	if count != maxGenerations || oldest != generations-maxGenerations+1 {
		t.Errorf("%d generations from %d on", count, oldest)
	}
	kept, bytes := 0, uint64(0)
	err := s.db.View(func(tx *bbolt.Tx) error {
		kept = tx.Bucket(bucketTexts).Stats().KeyN
		bytes = openHistory(tx).bytes
		if used := tx.Bucket(bucketTextUses).Stats().KeyN; used != kept {
			t.Errorf("%d texts, %d of them in use", kept, used)
		}
		return nil
	})
	if err != nil || kept != 2*policies {
		t.Errorf("%d texts, %v; want each of %d once", kept, err, 2*policies)
	}
	t.Logf("%d policies, %d generations of %d changes: %.1f MB", policies, count, policies/10, float64(bytes)/1e6)

	// More than the bound in bytes: fewer generations, the newest always.
	big := strings.Repeat("x", 9<<20)
	for g := generations + 1; g <= generations+12; g++ {
		before := fmt.Sprint(g, big)
		c := Change{Texts: map[Hash]string{hashOf(before): before}, Generation: &StoredGeneration{Number: uint64(g), Changes: []StoredChange{
			{Slot: "Policy/shop/big", Before: &StoredState{Text: hashOf(before), From: sourceAPI}}}}}
		if err := s.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	count = 0
	if err := s.Generations(func(StoredGeneration) bool { count++; return true }); err != nil || count != 7 {
		t.Errorf("%d generations of 9 MiB within 64 MiB, %v", count, err)
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket(bucketTexts).Stats().KeyN; n != 7 {
			t.Errorf("%d texts left", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSlots: a slot's key in the store is read back, also of what has no namespace.
func TestSlots(t *testing.T) {
	for key, name := range map[string]string{
		"Policy/shop/cart":                    "Policy shop/cart",
		"Policy/shop/cart/shadow":             "Policy shop/cart (shadow)",
		"ClusterNetworkPolicy//a":             "ClusterNetworkPolicy a",
		"NetworkPolicy/shadow/shadow":         "NetworkPolicy shadow/shadow",
		"ClusterNetworkPolicy//shadow/shadow": "ClusterNetworkPolicy shadow (shadow)",
	} {
		s, err := parseSlot(key)
		if err != nil || s.store() != key || s.String() != name {
			t.Errorf("%q: %q %q, %v; want %q", key, s.store(), s, err, name)
		}
	}
	for _, key := range []string{"", "Policy", "Policy/shop", "Policy/shop/", "//x", "a/b/c/d"} {
		if s, err := parseSlot(key); err == nil {
			t.Errorf("%q is read as %v", key, s)
		}
	}
}
