package firewall

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzReadBack reads what looks like the kernel's answers: nothing may panic, and a set that is not
// ours is told from one that is.
func FuzzReadBack(f *testing.F) {
	table := Compile(goldens[2].spec).Tables[0]
	for _, s := range table.Sets {
		b := newBatch()
		b.newSet(table, s, 1, "")
		f.Add([]byte(b.buf[2*(headerSize+genSize):]))
	}
	for _, r := range table.chain("out4").Rules {
		f.Add(r.wire)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		at := readAttrs(data)
		_ = canonical(data)
		_ = readHook(at)
		_ = readComment(data, udataRuleComment)
		if s, ok := readSet(at); ok && (s.Key.size() == 0) != (len(s.Key) == 0) {
			t.Errorf("a key of no bytes: %v", s.Key)
		}
		for _, a := range at {
			_ = Key{IPv6Addr, InetProto, InetService}.text(Element{Key: string(a.data), End: string(a.data)})
		}
	})
}

// TestSetReadsBack: the definition that is written is the one that is read.
func TestSetReadsBack(t *testing.T) {
	for _, table := range Compile(goldens[2].spec).Tables {
		for _, s := range table.Sets {
			b := newBatch()
			b.newSet(table, s, 1, "")
			got, ok := readSet(readAttrs(b.buf[2*(headerSize+genSize):]))
			if !ok || !got.sameKind(s) || got.Name != s.Name {
				t.Errorf("set %s: read back as %+v, ours %v", s.Name, got, ok)
			}
		}
	}
	if _, ok := readSet(readAttrs(attrs{8, 0, unix.NFTA_SET_FLAGS, 0, 0, 0, 0, 2})); ok {
		t.Error("a constant set of somebody else's is taken for ours")
	}
}
