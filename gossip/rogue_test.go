package gossip

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// heardAlarms gathers what a node is told of.
type heardAlarms struct {
	mu   sync.Mutex
	list []Alarm
}

func (h *heardAlarms) add(a Alarm) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, a)
}

func (h *heardAlarms) of(node string, kind AlarmKind) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.list {
		if a.Node == node && a.Kind == kind {
			n++
		}
	}
	return n
}

// mustBeSigned stands for the daemon's check: a policy is "signed N ..." with its serial, or not taken.
func mustBeSigned(rec Record) (uint64, error) {
	var serial uint64
	if _, err := fmt.Sscanf(string(rec.Value), "signed %d", &serial); rec.Class == "policy" && err != nil {
		return 0, errors.New("not signed")
	}
	return serial, nil
}

func startWary(t *testing.T, name string, alarms *heardAlarms, seeds ...string) *Cluster {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Node: name, Label: "shop", Key: key, Keyring: [][]byte{secret(1)}, Seeds: seeds,
		Bind: netip.MustParseAddrPort("127.0.0.1:0"), Log: slog.New(slog.DiscardHandler)}
	if alarms != nil {
		c.Alarm, c.Check = alarms.add, mustBeSigned
	}
	g, err := Join(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// A member that was taken over has the cluster's key and a key of its own, and lies. Whatever it sends,
// the others' state stays as it was, they are told who it was, and go on agreeing.
func TestRogueMember(t *testing.T) {
	var told heardAlarms
	n1 := startWary(t, "n1", &told)
	n2 := startWary(t, "n2", &heardAlarms{}, n1.address())
	rogue := startWary(t, "rogue", nil, n1.address())
	until(t, "three members", func() bool { return n1.alive.Load() == 3 && n2.alive.Load() == 3 && rogue.alive.Load() == 3 })
	write := func(g *Cluster, key, value string) {
		t.Helper()
		if _, err := g.State.Write(Endpoints, Entry{Key: key, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	write(n2, "web", "first")
	until(t, "n2's workload at the rogue's", func() bool { _, ok := rogue.State.Entry("n2", Endpoints, "web"); return ok })
	rogue.State.mu.Lock()
	old := rogue.State.books[bookID{"n2", Endpoints}].contents(allBuckets) // n2's own word, as it was
	rogue.State.mu.Unlock()
	if _, err := n2.State.Set("policy", "p", []byte("signed 1 old")); err != nil {
		t.Fatal(err)
	}
	until(t, "the old policy at the rogue's", func() bool { _, ok := rogue.State.Get("policy", "p"); return ok })
	if _, err := n2.State.Set("policy", "p", []byte("signed 2 new")); err != nil {
		t.Fatal(err)
	}
	write(n2, "web", "second")
	settled := func() bool {
		r, _ := n1.State.Get("policy", "p")
		e, _ := n1.State.Entry("n2", Endpoints, "web")
		return string(r.Value) == "signed 2 new" && string(e) == "second" && bytes.Equal(n1.State.Summary(), n2.State.Summary())
	}
	until(t, "all agree", settled)
	before := n1.State.Summary()

	send := func(from string, messages ...[]byte) {
		t.Helper()
		for _, m := range messages {
			frame := append(append([]byte{byte(len(from))}, from...), m...)
			if err := rogue.list.SendReliable(rogue.member("n1"), frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	later := Delta{Head: old.Head, From: 0, Entries: []Entry{{Key: "web", Value: []byte("mine")}}}
	later.Head.Version.Seq += 100
	forged := func(d Delta, key ed25519.PrivateKey) []byte {
		d.Head.Sign = ed25519.Sign(key, d.Head.signed())
		return encode(msgDelta, &d)
	}
	write1 := func(value string, at time.Time, node string) []byte {
		return encode(msgWrite, &records{List: []Record{{Class: "policy", Key: "p", Time: timestampAt(at), Node: node, Value: []byte(value)}}})
	}
	soon := time.Now().Add(time.Hour)
	huge := binary.BigEndian.AppendUint32([]byte{msgDelta, 0x9a}, 0xffffffff) // an array of four billion
	cases := []struct {
		name    string
		from    string
		message []byte
		kind    AlarmKind // "": no alarm
	}{
		{"another node's book, signed by itself", "rogue", forged(later, rogue.config.Key), AlarmForged},
		{"another node's book, unsigned", "rogue", encode(msgDelta, &later), AlarmForged},
		{"in the name of its owner", "n2", forged(later, rogue.config.Key), AlarmForged},
		{"the owner's own old word again", "rogue", encode(msgContents, old), ""},
		{"a book of nobody", "rogue", forged(Delta{Head: Head{Owner: "ghost", Kind: Endpoints, Version: Version{Epoch: 1, Seq: 1}}}, rogue.config.Key), ""},
		{"a policy that nobody signed", "rogue", write1("open all", soon, "rogue"), AlarmRefused},
		{"its deletion", "rogue", encode(msgWrite, &records{List: []Record{{Class: "policy", Key: "p", Time: timestampAt(soon), Node: "n2"}}}), AlarmRefused},
		{"an old signed policy with a young time", "rogue", write1("signed 1 old", soon, "n2"), ""},
		{"a write from next year", "rogue", write1("signed 9 x", time.Now().Add(400*24*time.Hour), "n2"), AlarmMalformed},
		{"nothing", "rogue", nil, AlarmMalformed},
		{"noise", "rogue", []byte{msgContents, 0xff, 0xff, 0xff}, AlarmMalformed},
		{"an array that fills memory", "rogue", huge, AlarmMalformed},
		{"a later version's message", "rogue", []byte{200, 1, 2}, ""},
		{"an order about keys that is none", "rogue", encode(msgQuestion, &question{ID: 1, What: "keys", Body: []byte{0xff}}), ""},
		{"an answer that nobody asked for", "rogue", encode(msgAnswer, &answer{ID: 99, Body: []byte("x")}), ""},
	}
	for _, c := range cases {
		n1.alarms.mu.Lock()
		clear(n1.alarms.told) // each is told, not once a minute
		n1.alarms.mu.Unlock()
		was := told.of(c.from, c.kind)
		heard := n1.counts.Refused.Load()
		send(c.from, c.message)
		if c.kind != "" {
			until(t, c.name+": is told", func() bool { return told.of(c.from, c.kind) == was+1 })
			if n1.counts.Refused.Load() == heard {
				t.Errorf("%s: not counted", c.name)
			}
		}
	}
	// The end of a name that never comes.
	if err := rogue.list.SendReliable(rogue.member("n1"), []byte{250, 'x'}); err != nil {
		t.Fatal(err)
	}

	// A flood: nothing stays, people are told a few times, and what is honest goes through.
	for i := range 60 {
		var many records
		for j := range 50 {
			many.List = append(many.List, Record{Class: "policy", Key: fmt.Sprint(i, " ", j), Time: timestampAt(soon), Node: fmt.Sprint("n", i), Value: bytes.Repeat([]byte("x"), 1000)})
		}
		send("rogue", encode(msgRecords, &many))
	}
	write(n2, "web", "third")
	until(t, "an honest change comes through", func() bool { e, _ := n1.State.Entry("n2", Endpoints, "web"); return string(e) == "third" })
	if n := len(n1.State.List("policy")); n != 1 {
		t.Errorf("%d policies after the flood, want 1", n)
	}
	if n := told.of("rogue", AlarmRefused); n > 8 {
		t.Errorf("told %d times of refused writes", n)
	}
	write(n2, "web", "second")
	until(t, "all agree again", func() bool { return settled() && n1.alive.Load() == 3 })
	if bytes.Equal(before, n1.State.Summary()) {
		t.Error("n2's new version is not in the summary") // the entries are the same, the version is not
	}
}

// Who shows another key than a node is known by is not taken for it, nor is one who goes by this node's
// own name; and nobody can say another's goodbye.
func TestMemberData(t *testing.T) {
	_, a, _ := ed25519.GenerateKey(nil)
	_, b, _ := ed25519.GenerateKey(nil)
	about := meta{Key: a.Public().(ed25519.PublicKey), Version: strings.Repeat("v", 400), Leaving: true}
	good := sealMeta("n1", about, a, 512)
	if m, err := openMeta("n1", good); err != nil || !m.Leaving || len(good) > 512 {
		t.Fatalf("%d bytes, %+v, %v", len(good), m, err)
	}
	for name, c := range map[string]struct {
		node string
		data []byte
		want error
	}{
		"another's data":        {"n2", good, ErrForged},
		"signed by another":     {"n1", sealMeta("n1", about, b, 512), ErrForged},
		"cut off":               {"n1", good[:len(good)-1], errMalformed},
		"nothing":               {"n1", nil, errMalformed},
		"a name for terminals":  {"n\x1b[2J", sealMeta("n\x1b[2J", about, a, 512), errMalformed},
		"a version for them":    {"n1", sealMeta("n1", meta{Key: about.Key, Version: "\x1b[2J"}, a, 512), errMalformed},
		"more than it may hold": {"n1", sealMeta("n1", meta{Key: about.Key, Trust: make([]byte, 65)}, a, 512), errMalformed},
	} {
		if _, err := openMeta(c.node, c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A later version may say more of itself, and this one reads what it knows.
func TestMemberDataOfALaterVersion(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	body, err := encoder.Marshal(map[int]any{1: []byte(key.Public().(ed25519.PublicKey)), 4: "9.0", 77: "new", 78: []int{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := encoder.Marshal(&signedBody{Body: body, Sign: ed25519.Sign(key, signedMeta("n9", body))})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := openMeta("n9", data); err != nil || m.Version != "9.0" {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzMemberData(f *testing.F) {
	_, key, _ := ed25519.GenerateKey(nil)
	f.Add("n1", sealMeta("n1", meta{Key: key.Public().(ed25519.PublicKey), Version: "1"}, key, 512))
	f.Fuzz(func(t *testing.T, node string, data []byte) {
		if m, err := openMeta(node, data); err == nil && len(m.Key) != ed25519.PublicKeySize {
			t.Fatal("a key of another size")
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{2, 'n', '1', msgSummary, 0x82, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := readFrame(data)
		if err != nil {
			return
		}
		_ = x.kind()
		if _, err := decode[question](append([]byte{msgQuestion}, x.message...)); err == nil {
			_, _ = decode[answer](append([]byte{msgAnswer}, x.message...))
		}
	})
}
