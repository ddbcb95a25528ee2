package daemon

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestStoreRoundTrip: what is written is read back by the next daemon.
func TestStoreRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	w := StoredWorkload{
		ID: "c1", Namespace: "shop", Name: "cart-1", Labels: identity.Labels{"app": "cart"},
		NetNS: "/run/netns/c1", Cookie: 4711,
		Interfaces: []StoredInterface{{Name: "eth0", Host: "veth1", HostIndex: 7, MAC: "02:00:00:00:00:01",
			Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.5"), netip.MustParseAddr("fd00:88::5")}}},
		Since: time.Unix(1700000000, 0).UTC(), StartSeen: true,
	}
	service := func(name string) flow.End {
		return flow.End{Kind: identity.Pod, Service: identity.Service{Namespace: "shop", Name: name}}
	}
	edge := flow.Edge{Key: flow.Key{Client: service("web"), Server: service("cart"), Protocol: identity.TCP, Port: 80}}
	gone := flow.Key{Client: service("web"), Server: service("ad"), Protocol: identity.TCP, Port: 80}
	standard, enforce, alert := policy.AlertMode, policy.Enforce, policy.AlertMode
	def0 := &standard
	for _, err := range []error{
		s.PutWorkload(w), s.PutWorkload(StoredWorkload{ID: "c2"}), s.DeleteWorkloads("c2", "never"),
		s.Commit(Change{Put: map[string]StoredPolicy{"Policy/shop/a": {Text: "a"}, "Policy/shop/b": {Text: "b"}},
			Modes: map[string]*policy.Mode{"shop/cart": &enforce}}),
		s.Commit(Change{Delete: []string{"Policy/shop/a"},
			Modes: map[string]*policy.Mode{"shop/ad": &alert, "shop/cart": nil}, DefaultMode: &def0}),
		s.PutLearned([]flow.Edge{edge, {Key: gone}}, nil, []flow.Known{{Key: edge.Key, How: flow.Learned, ByClient: true}}),
		s.PutLearned(nil, []flow.Key{gone}, nil),
		s.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, dir)
	workloads, err := s.Workloads()
	if diff := cmp.Diff([]StoredWorkload{w}, workloads, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("workloads: %v %s", err, diff)
	}
	policies, err := s.Policies()
	if diff := cmp.Diff(map[string]StoredPolicy{"Policy/shop/b": {Text: "b"}}, policies); err != nil || diff != "" {
		t.Errorf("policies: %v %s", err, diff)
	}
	modes, def, err := s.Modes()
	if diff := cmp.Diff(map[string]policy.Mode{"shop/ad": policy.AlertMode}, modes); err != nil || diff != "" || def == nil || *def != standard {
		t.Errorf("modes: %v %s, default %v", err, diff, def)
	}
	edges, known, err := s.Learned()
	if err != nil || len(edges) != 1 || edges[0].Key != edge.Key || len(known) != 1 || known[0].Key != edge.Key {
		t.Errorf("learned %+v %+v %v", edges, known, err)
	}
}

// TestStoreHeld: a second daemon on the same state is refused, and told what to do.
func TestStoreHeld(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	_, err := OpenStore(dir)
	want := "open " + dir + "/state.db: held by another daemon; stop it, or give this one another stateDir"
	if !errors.Is(err, ErrStoreHeld) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestStoreRefuses: a store of a later program, and a file that is none.
func TestStoreRefuses(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint64(nil, schema+1))
	})
	if err != nil || s.Close() != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir); err == nil || !strings.HasSuffix(err.Error(), "schema 3, this program knows 2; use the newer bulkheadd") {
		t.Errorf("later schema: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "state.db"), []byte("hello, this is not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(other); err == nil {
		t.Error("a file that is no store was opened")
	}
}

// TestStoreBadRecord: a record that does not decode costs itself only.
func TestStoreBadRecord(t *testing.T) {
	s := openStore(t, t.TempDir())
	if err := s.PutWorkload(StoredWorkload{ID: "good"}); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketWorkloads).Put([]byte("bad"), []byte("{")) }); err != nil {
		t.Fatal(err)
	}
	got, err := s.Workloads()
	if len(got) != 1 || got[0].ID != "good" || err == nil || !strings.Contains(err.Error(), `workloads "bad"`) {
		t.Errorf("%+v, %v", got, err)
	}
}
