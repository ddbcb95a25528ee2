package gossip

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// A key is replaced while messages fly: none is lost, and orders that would cut somebody off are refused.
func TestKeyRotation(t *testing.T) {
	old, fresh := secret(1), secret(2)
	nodes := []*Cluster{startNode(t, "n0", "shop", [][]byte{old})}
	for i := 1; i < 4; i++ {
		nodes = append(nodes, startNode(t, fmt.Sprintf("n%d", i), "shop", [][]byte{old}, nodes[0].address()))
	}
	until(t, "four members everywhere", func() bool {
		for _, n := range nodes {
			if len(n.Members()) != 4 {
				return false
			}
		}
		return true
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := nodes[0].UseKey(ctx, fresh); err == nil {
		t.Error("a key that nobody has is used")
	}
	if _, err := nodes[0].RemoveKey(ctx, old); err == nil {
		t.Error("the only key is removed")
	}
	written := 0
	write := func() {
		for range 20 {
			if _, err := nodes[written%4].State.Set("policy", fmt.Sprint(written), []byte("x")); err != nil {
				t.Fatal(err)
			}
			written++
		}
	}
	for _, step := range []func() ([]KeyState, error){
		func() ([]KeyState, error) { return nodes[1].InstallKey(ctx, fresh) },
		func() ([]KeyState, error) { return nodes[2].UseKey(ctx, fresh) },
		func() ([]KeyState, error) { return nodes[3].RemoveKey(ctx, old) },
	} {
		write()
		if _, err := step(); err != nil {
			t.Fatal(err)
		}
		write()
	}
	until(t, "all writes everywhere", func() bool {
		for _, n := range nodes {
			if len(n.State.List("policy")) != written {
				return false
			}
		}
		return true
	})
	states, err := nodes[0].Keys(ctx)
	if err != nil || len(states) != 4 {
		t.Fatal(states, err)
	}
	for _, s := range states {
		if s.Primary != Fingerprint(fresh) || len(s.Keys) != 1 {
			t.Errorf("%+v", s)
		}
	}
	for _, n := range nodes {
		if n.counts.Refused.Load() > 0 {
			t.Errorf("%s refused %d messages", n.config.Node, n.counts.Refused.Load())
		}
	}
}
