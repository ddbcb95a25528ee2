package daemon

import (
	"crypto/ed25519"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// loneCluster is a node's part in a cluster of its own, without a daemon that runs.
func loneCluster(t *testing.T, node string) *cluster {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg := DefaultConfig()
	own := defaultCluster()
	cfg.Node, cfg.Cluster = node, &own
	d := New(cfg, log)
	c := newCluster(d)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Cluster, err = gossip.Join(t.Context(), gossip.Config{Node: node, Label: "whole", Key: key, Log: log,
		Bind: netip.MustParseAddrPort("127.0.0.1:0"), Advertise: netip.MustParseAddrPort("127.0.0.1:1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestWhole: parts of one change wait for each other, in whatever order they come, and not for ever.
func TestWhole(t *testing.T) {
	writer, c := loneCluster(t, "writer"), loneCluster(t, "reader")
	write := func(class, key string) gossip.Record {
		rec, err := writer.State.Draft(class, key, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	one, two, other := write(classPolicy, "Policy/a/one"), write(classMode, "a/two"), write(classPolicy, "Policy/a/other")
	bound, ok, err := writer.bind([]gossip.Record{one, two})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	come := func(list ...gossip.Record) (now, later int) {
		t.Helper()
		if err := c.State.Put(list...); err != nil {
			t.Fatal(err)
		}
		var ids []gossip.ID
		for _, rec := range list {
			ids = append(ids, rec.ID())
		}
		x, y := c.whole(ids)
		return len(x), len(y)
	}
	if now, later := come(bound, two, other); now != 2 || later != 1 {
		t.Errorf("a part without the other: %d now, %d later; want the change itself and what is not of it now", now, later)
	}
	if now, later := come(one, two); now != 2 || later != 0 {
		t.Errorf("both parts: %d now, %d later", now, later)
	}
	again, _, err := writer.bind([]gossip.Record{write(classPolicy, "Policy/a/one"), write(classPolicy, "Policy/a/lost")})
	if err != nil {
		t.Fatal(err)
	}
	next := write(classPolicy, "Policy/a/one")
	if now, later := come(again, next); now != 1 || later != 1 {
		t.Errorf("a part is lost: %d now, %d later", now, later)
	}
	o := c.parted["writer"]
	o.since = time.Now().Add(-2 * wholeWait)
	c.parted["writer"] = o
	if now, later := c.whole([]gossip.ID{next.ID()}); len(now) != 1 || len(later) != 0 {
		t.Errorf("a lost part holds the others up for ever: %d now, %d later", len(now), len(later))
	}
	if _, ok, _ := writer.bind([]gossip.Record{one}); ok {
		t.Error("a change of one part is bound")
	}
}
