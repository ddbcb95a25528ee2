package gossip

import (
	"testing"
	"time"
)

// Whatever is on the disk, a node starts, and what it took over is whole.
func FuzzRestore(f *testing.F) {
	s, other, _ := pair(f)
	if _, err := other.Write(Endpoints, Entry{Key: "pod", Value: []byte("x")}); err != nil {
		f.Fatal(err)
	}
	if _, err := s.Set("policy", "p", []byte("x")); err != nil {
		f.Fatal(err)
	}
	talk(f, s, other)
	good, err := s.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		fresh := NewState(StateConfig{Node: s.self, Key: s.key, Now: time.Now, Broadcast: func(string, []byte, []byte) {}})
		_ = fresh.Restore(data)
		again, err := fresh.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		back := NewState(StateConfig{Node: s.self, Key: s.key, Now: time.Now, Broadcast: func(string, []byte, []byte) {}})
		if err := back.Restore(again); err != nil {
			t.Fatalf("what was restored cannot be restored again: %v", err)
		}
	})
}
