package flow

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// rr writes a record as zone files do: "www.example.com 60 A 192.0.2.1".
func rr(t testing.TB, line string) dnsmessage.Resource {
	t.Helper()
	f := strings.Fields(line)
	var ttl uint32
	if _, err := fmt.Sscan(f[1], &ttl); err != nil {
		t.Fatal(err)
	}
	r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(f[0] + "."), Class: dnsmessage.ClassINET, TTL: ttl}}
	switch f[2] {
	case "A":
		r.Body = &dnsmessage.AResource{A: netip.MustParseAddr(f[3]).As4()}
	case "AAAA":
		r.Body = &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(f[3]).As16()}
	case "CNAME":
		r.Body = &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(f[3] + ".")}
	case "TXT":
		r.Body = &dnsmessage.TXTResource{TXT: f[3:]}
	case "HTTPS", "SVCB": // target, then hints
		s := dnsmessage.SVCBResource{Priority: 1, Target: dnsmessage.MustNewName(f[3] + ".")}
		for _, a := range f[4:] {
			a := netip.MustParseAddr(a)
			key := dnsmessage.SVCParamIPv4Hint
			if a.Is6() {
				key = dnsmessage.SVCParamIPv6Hint
			}
			old, _ := s.GetParam(key)
			s.SetParam(key, append(old, a.AsSlice()...))
		}
		r.Body = &s
		if f[2] == "HTTPS" {
			r.Body = &dnsmessage.HTTPSResource{SVCBResource: s}
		}
	default:
		t.Fatalf("record %q", line)
	}
	return r
}

func answerTo(t testing.TB, asked string, records ...string) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(asked + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	for _, r := range records {
		m.Answers = append(m.Answers, rr(t, r))
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (a Answer) text() string {
	var out []string
	for _, x := range a.Addrs {
		out = append(out, fmt.Sprintf("%s=%s/%s", strings.Join(a.Names[:x.Owner+1], ">"), x.Addr, x.TTL))
	}
	return strings.Join(out, " ")
}

func TestReadAnswer(t *testing.T) {
	for _, row := range []struct {
		why     string
		asked   string
		records []string
		want    string
	}{
		{"addresses", "a.org", []string{"a.org 60 A 192.0.2.1", "a.org 30 AAAA 2001:db8::1"}, "a.org=192.0.2.1/1m0s a.org=2001:db8::1/30s"},
		{"case does not count (RFC 4343)", "A.Org", []string{"a.oRG 60 A 192.0.2.1"}, "a.org=192.0.2.1/1m0s"},
		{"aliases, and the shortest TTL on the way", "a.org", []string{"a.org 20 CNAME b.net", "b.net 90 CNAME c.net", "c.net 60 A 192.0.2.1"}, "a.org>b.net>c.net=192.0.2.1/20s"},
		{"in any order", "a.org", []string{"c.net 10 A 192.0.2.1", "b.net 90 CNAME c.net", "a.org 20 CNAME b.net"}, "a.org>b.net>c.net=192.0.2.1/10s"},
		{"a name that nobody asked for", "a.org", []string{"a.org 60 A 192.0.2.1", "bank.org 60 A 192.0.2.66"}, "a.org=192.0.2.1/1m0s"},
		{"an alias of something else", "a.org", []string{"bank.org 60 CNAME a.org", "a.org 60 A 192.0.2.1"}, "a.org=192.0.2.1/1m0s"},
		{"an alias of itself", "a.org", []string{"a.org 60 CNAME a.org"}, ""},
		{"aliases in a ring", "a.org", []string{"a.org 60 CNAME b.org", "b.org 60 CNAME a.org", "b.org 60 A 192.0.2.1"}, "a.org>b.org=192.0.2.1/1m0s"},
		{"nothing about addresses", "a.org", []string{"a.org 60 TXT hello"}, ""},
		{"nothing", "a.org", nil, ""},
		{"hints are the owner's, never the target's", "a.org", []string{"a.org 60 HTTPS bank.org 192.0.2.1 192.0.2.2 2001:db8::1"}, "a.org=192.0.2.1/1m0s a.org=192.0.2.2/1m0s a.org=2001:db8::1/1m0s"},
		{"hints behind an alias", "a.org", []string{"a.org 60 CNAME b.org", "b.org 60 SVCB b.org 192.0.2.1"}, "a.org>b.org=192.0.2.1/1m0s"},
		{"a TTL with its first bit set is zero (RFC 2181, 8)", "a.org", []string{"a.org 2147483648 A 192.0.2.1"}, "a.org=192.0.2.1/0s"},
		{"IPv4-mapped", "a.org", []string{"a.org 60 AAAA ::ffff:192.0.2.1"}, "a.org=192.0.2.1/1m0s"},
	} {
		a, err := ReadAnswer(answerTo(t, row.asked, row.records...))
		if err != nil || a.text() != row.want {
			t.Errorf("%s: %q, %v; want %q", row.why, a.text(), err, row.want)
		}
	}
}

func TestReadAnswerBounds(t *testing.T) {
	var records []string
	for i := range 400 {
		records = append(records, fmt.Sprintf("a.org 60 A 10.0.%d.%d", i>>8, i&255))
	}
	a, err := ReadAnswer(answerTo(t, "a.org", records...))
	if err != nil || len(a.Addrs) != answerAddrs {
		t.Errorf("%d addresses, %v; want the %d of the bound", len(a.Addrs), err, answerAddrs)
	}
	records = nil
	for i := range 40 {
		records = append(records, fmt.Sprintf("n%d.org 60 CNAME n%d.org", i, i+1))
	}
	a, err = ReadAnswer(answerTo(t, "n0.org", append(records, "n40.org 60 A 192.0.2.1", "n5.org 60 A 192.0.2.5")...))
	if err != nil || len(a.Names) != answerChain+1 || len(a.Addrs) != 1 {
		t.Errorf("%d names, %d addresses, %v", len(a.Names), len(a.Addrs), err)
	}
}

func TestReadAnswerGarbled(t *testing.T) {
	whole := answerTo(t, "a.org", "a.org 60 A 192.0.2.1", "a.org 60 A 192.0.2.2")
	for n := range whole {
		if a, err := ReadAnswer(whole[:n]); err == nil || len(a.Addrs) > 1 {
			t.Errorf("cut after %d bytes: %+v, %v", n, a, err)
		}
	}
	edit := func(at int, b ...byte) []byte {
		m := append([]byte(nil), whole...)
		copy(m[at:], b)
		return m
	}
	const question = 12
	for why, m := range map[string][]byte{
		"a question":                   edit(2, 0x01),
		"an error":                     edit(3, 0x03),
		"another opcode":               edit(2, 0xa8),
		"no question":                  edit(5, 0),
		"a name that points at itself": edit(question, 0xc0, question),
		"a name of the future":         edit(question, 0xc0, 0xff),
		"a label longer than all":      edit(question, 63),
		"bytes no host is called":      edit(question+1, '\n'),
		"a dot inside of a label":      edit(question+1, '.'),
	} {
		if a, _ := ReadAnswer(m); len(a.Addrs) > 0 {
			t.Errorf("%s taught %s", why, a.text())
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add(answerTo(f, "a.org", "a.org 60 CNAME b.org", "b.org 60 A 192.0.2.1", "b.org 60 HTTPS b.org 192.0.2.1 2001:db8::1"))
	f.Add(answerTo(f, "a.org", "a.org 60 AAAA 2001:db8::1", "a.org 60 TXT x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, _ := ReadAnswer(b)
		if len(a.Addrs) > answerAddrs || len(a.Names) > answerChain+1 {
			t.Fatalf("%d names, %d addresses", len(a.Names), len(a.Addrs))
		}
		n := NewNames(NameLimits{Total: 8, PerPattern: 4})
		n.SetPatterns([]string{"*.org"})
		n.Learn(a, nil, time.Unix(1e9, 0))
		if n.Stats().Pairs > 8 {
			t.Fatal("bound passed")
		}
		for _, x := range a.Addrs {
			if !x.Addr.IsValid() || x.Owner >= len(a.Names) || x.TTL < 0 {
				t.Fatalf("%+v", a)
			}
		}
		for _, name := range a.Names {
			if strings.ToLower(name) != name || strings.HasSuffix(name, ".") || strings.ContainsAny(name, " \n\x00") {
				t.Fatalf("name %q", name)
			}
		}
	})
}
