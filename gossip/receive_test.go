package gossip

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"time"
)

// pair is a State, another node's key, and what the other node wrote.
func pair(t testing.TB) (s, other *State, sent *[][]byte) {
	t.Helper()
	now := func() time.Time { return time.Unix(1_800_000_000, 0) }
	sent = &[][]byte{}
	keyOf := func(fill byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{fill}, ed25519.SeedSize))
	}
	s = NewState(StateConfig{Node: "me", Key: keyOf(1), Now: now, Broadcast: func(string, []byte, []byte) {}})
	other = NewState(StateConfig{Node: "other", Key: keyOf(2), Now: now, Broadcast: func(_ string, m, _ []byte) { *sent = append(*sent, m) }})
	if err := s.Pin("other", other.pins["other"]); err != nil {
		t.Fatal(err)
	}
	return s, other, sent
}

func sealed(key ed25519.PrivateKey, d Delta) []byte {
	d.Head.Sign = ed25519.Sign(key, d.Head.signed())
	return encode(msgDelta, &d)
}

// What is not as it must be is refused with the sender's name, and changes nothing.
func TestRefused(t *testing.T) {
	s, other, sent := pair(t)
	if _, err := other.Write(Endpoints, Entry{Key: "pod", Value: []byte("10.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	whole := encode(msgContents, other.books[bookID{"other", Endpoints}].contents(allBuckets))
	if _, err := s.Receive("other", whole); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write(Endpoints, Entry{Key: "pod2", Value: []byte("10.0.0.2")}); err != nil {
		t.Fatal(err)
	}
	good, err := decode[Delta]((*sent)[len(*sent)-1])
	if err != nil {
		t.Fatal(err)
	}
	rogue := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	changed := func(f func(*Delta)) Delta {
		d := *good
		d.Entries = append([]Entry(nil), good.Entries...)
		f(&d)
		return d
	}
	later := changed(func(d *Delta) { d.Head.Version.Seq++ })
	lie := changed(func(d *Delta) { d.Entries[0].Value = []byte("10.9.9.9") })
	ghost := changed(func(d *Delta) { d.Head.Owner = "ghost" })
	huge := changed(func(d *Delta) { d.Entries = append(d.Entries, Entry{Key: "x", Value: make([]byte, maxValue+1)}) })
	for name, c := range map[string]struct {
		message []byte
		want    error
	}{
		"empty":                {nil, errMalformed},
		"unknown type":         {[]byte{200, 1}, errUnknownKind},
		"too large":            {append([]byte{msgRecords}, make([]byte, maxMessage+1)...), errMalformed},
		"cut off":              {(*sent)[len(*sent)-1][:40], errMalformed},
		"signed by another":    {sealed(rogue, later), ErrForged},
		"head changed":         {encode(msgDelta, &later), ErrForged},
		"entries changed":      {encode(msgDelta, &lie), ErrForged},
		"of no member":         {sealed(rogue, ghost), errNoMember},
		"entry too large":      {encode(msgDelta, &huge), errMalformed},
		"vector of wrong size": {encode(msgVector, &vector{Books: []uint64{1}}), errMalformed},
		"write from a far future": {encode(msgWrite, &records{List: []Record{{Class: "policy", Key: "p", Node: "other",
			Time: timestampAt(time.Unix(1_900_000_000, 0)), Value: []byte("x")}}}), errMalformed},
		"key too long": {encode(msgWrite, &records{List: []Record{{Class: "policy", Key: string(make([]byte, maxKey+1)), Node: "other", Value: []byte("x")}}}), errMalformed},
	} {
		before := s.Summary()
		replies, err := s.Receive("other", c.message)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
		if len(replies) > 0 || !bytes.Equal(before, s.Summary()) {
			t.Errorf("%s: it changed something", name)
		}
	}
	if _, err := s.Receive("other", encode(msgDelta, good)); err != nil || len(s.Entries("other", Endpoints)) != 2 {
		t.Errorf("the true one is refused: %v", err)
	}
	// Replayed, nothing happens.
	before := s.Summary()
	for _, m := range append(*sent, whole) {
		if _, err := s.Receive("other", m); err != nil || !bytes.Equal(before, s.Summary()) {
			t.Errorf("a replay does something: %v", err)
		}
	}
}

// Nodes of one mind pay a few bytes, and one change among ten thousand endpoints costs little more.
func TestExchangeCost(t *testing.T) {
	const nodes, each = 100, 100
	now := func() time.Time { return time.Unix(1_800_000_000, 0) }
	a := NewState(StateConfig{Node: "a", Key: ed25519.NewKeyFromSeed(make([]byte, 32)), Now: now, Broadcast: func(string, []byte, []byte) {}})
	b := NewState(StateConfig{Node: "b", Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), Now: now, Broadcast: func(string, []byte, []byte) {}})
	var owners []*State
	for i := range nodes {
		o := NewState(StateConfig{Node: fmt.Sprintf("n%d", i), Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 2)}, 32)), Now: now, Broadcast: func(string, []byte, []byte) {}})
		var all []Entry
		for j := range each {
			all = append(all, Entry{Key: fmt.Sprintf("%064d", j), Value: make([]byte, 150)})
		}
		if _, err := o.Write(Endpoints, all...); err != nil {
			t.Fatal(err)
		}
		owners = append(owners, o)
		for _, s := range []*State{a, b} {
			if err := s.Pin(o.self, o.pins[o.self]); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Receive(o.self, encode(msgContents, o.books[bookID{o.self, Endpoints}].contents(allBuckets))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, x := range []*State{a, b} {
		for _, y := range []*State{a, b} {
			if err := x.Pin(y.self, y.pins[y.self]); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := talk(t, a, b) // their own empty books
	equal := talk(t, a, b)
	if _, err := owners[7].Write(Endpoints, Entry{Key: fmt.Sprintf("%064d", 3), Value: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Receive("n7", encode(msgContents, owners[7].books[bookID{"n7", Endpoints}].contents(allBuckets))); err != nil {
		t.Fatal(err)
	}
	one := talk(t, a, b)
	if !bytes.Equal(a.Summary(), b.Summary()) {
		t.Fatal("no agreement")
	}
	t.Logf("10,000 endpoints on 100 nodes: equal %d bytes, one change %d bytes, two new nodes %d bytes", equal, one, first)
	if equal > 100 || one > 16<<10 {
		t.Error("an exchange costs more than a few kilobytes")
	}
}

// talk lets two nodes exchange until they are done, and counts the bytes.
func talk(t testing.TB, a, b *State) (n int) {
	t.Helper()
	type mail struct {
		from, to *State
		m        []byte
	}
	for queue := []mail{{a, b, a.Summary()}}; len(queue) > 0; queue = queue[1:] {
		x := queue[0]
		n += len(x.m)
		replies, err := x.to.Receive(x.from.self, x.m)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range replies {
			queue = append(queue, mail{x.to, x.from, r})
		}
	}
	return n
}

func FuzzReceive(f *testing.F) {
	_, other, sent := pair(f)
	if _, err := other.Write(Endpoints, Entry{Key: "pod", Value: []byte("10.0.0.1")}); err != nil {
		f.Fatal(err)
	}
	if _, err := other.Set("policy", "p", []byte("x")); err != nil {
		f.Fatal(err)
	}
	for _, m := range *sent {
		f.Add(m)
	}
	f.Add(other.Summary())
	f.Add(encode(msgVector, other.vector(false)))
	f.Add(encode(msgContents, other.books[bookID{"other", Endpoints}].contents(allBuckets)))
	f.Add(encode(msgWant, &want{Books: []wantBook{{Owner: "me", Kind: Endpoints}}}))
	f.Fuzz(func(t *testing.T, m []byte) {
		s, _, _ := pair(t)
		_, _ = s.Receive("other", m)
		if _, err := s.Snapshot(); err != nil {
			t.Fatal(err)
		}
	})
}
