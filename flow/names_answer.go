package flow

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of what is read of one answer; what is beyond them is not learned.
const (
	answerRecords = 512 // records of the answer section
	answerAddrs   = 256 // addresses
	answerChain   = 16  // aliases behind the asked name
)

// Answer is what one DNS message says of the addresses of the name that was asked for. Without
// addresses it says nothing: a question, an error, an answer about something else.
type Answer struct {
	// Names is the asked name, then each name that it is an alias of (CNAME), in order: lower case,
	// without the last dot.
	Names []string
	Addrs []AnswerAddr
}

// AnswerAddr is one address with the name that has it, and how long that holds.
type AnswerAddr struct {
	Addr  netip.Addr    // unmapped
	Owner int           // the name is Names[Owner]; the ones before it are aliases of it
	TTL   time.Duration // the shortest on the way from the asked name
}

// ReadAnswer reads a DNS message (RFC 1035, 4.1): addresses in A and AAAA records (RFC 3596), and in
// the hints of SVCB and HTTPS records (RFC 9460, 7.3), of the asked name and of what it is an alias
// of. Records of other names, and other sections than the answer, mean nothing.
//
// Errors: it is no DNS message, or is cut off or garbled; what was read until there is returned too.
func ReadAnswer(message []byte) (Answer, error) {
	var p dnsmessage.Parser
	head, err := p.Start(message)
	if err != nil {
		return Answer{}, fmt.Errorf("DNS header: %w", err)
	}
	if !head.Response || head.OpCode != 0 || head.RCode != dnsmessage.RCodeSuccess {
		return Answer{}, nil
	}
	asked, err := p.Question()
	if err != nil {
		return Answer{}, fmt.Errorf("DNS question: %w", err)
	}
	// "QDCOUNT … MUST NOT be greater than 1" (RFC 9619, 4)
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return Answer{}, errors.New("DNS question: more than one")
	}
	name, ok := hostName(asked.Name)
	if !ok || asked.Class != dnsmessage.ClassINET {
		return Answer{}, nil
	}
	r := answerRecordSet{aliases: map[string]alias{}}
	err = r.read(&p)
	return r.resolve(name), err
}

// hostName is a name in lower case, without its last dot. It is false for what no host is called:
// policies cannot name it, and people should not be shown it.
func hostName(n dnsmessage.Name) (string, bool) {
	b := n.Data[:n.Length]
	if len(b) < 2 || b[len(b)-1] != '.' { // the root has no addresses
		return "", false
	}
	b = b[:len(b)-1]
	var out strings.Builder
	out.Grow(len(b))
	for _, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return "", false
		}
		out.WriteByte(c)
	}
	return out.String(), true
}

// answerRecordSet is what an answer section holds of use, in whatever order it comes.
type answerRecordSet struct {
	aliases map[string]alias
	addrs   []ownedAddr
}

type alias struct {
	to  string
	ttl time.Duration
}

type ownedAddr struct {
	owner string
	addr  netip.Addr
	ttl   time.Duration
}

func (r *answerRecordSet) read(p *dnsmessage.Parser) error {
	for range answerRecords {
		head, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err == nil {
			err = r.record(p, head)
		}
		if err != nil {
			return fmt.Errorf("DNS answer: %w", err)
		}
	}
	return nil
}

// record reads one record, whose header was read.
func (r *answerRecordSet) record(p *dnsmessage.Parser, head dnsmessage.ResourceHeader) error {
	owner, ok := hostName(head.Name)
	if !ok || head.Class != dnsmessage.ClassINET {
		return p.SkipAnswer()
	}
	ttl := answerTTL(head.TTL)
	switch head.Type {
	case dnsmessage.TypeA:
		a, err := p.AResource()
		r.add(owner, netip.AddrFrom4(a.A), ttl, err)
		return err
	case dnsmessage.TypeAAAA:
		a, err := p.AAAAResource()
		r.add(owner, netip.AddrFrom16(a.AAAA).Unmap(), ttl, err)
		return err
	case dnsmessage.TypeCNAME:
		c, err := p.CNAMEResource()
		if to, ok := hostName(c.CNAME); ok && err == nil {
			r.aliases[owner] = alias{to, ttl}
		}
		return err
	case dnsmessage.TypeSVCB:
		s, err := p.SVCBResource()
		r.hints(owner, &s, ttl, err)
		return err
	case dnsmessage.TypeHTTPS:
		s, err := p.HTTPSResource()
		r.hints(owner, &s.SVCBResource, ttl, err)
		return err
	}
	return p.SkipAnswer()
}

func (r *answerRecordSet) add(owner string, a netip.Addr, ttl time.Duration, err error) {
	if err == nil && len(r.addrs) < answerAddrs {
		r.addrs = append(r.addrs, ownedAddr{owner, a, ttl})
	}
}

// hints are addresses of the record's owner. They are never the target's: whoever writes the record
// has no say over another name.
func (r *answerRecordSet) hints(owner string, s *dnsmessage.SVCBResource, ttl time.Duration, err error) {
	if err != nil {
		return
	}
	v4, _ := s.GetParam(dnsmessage.SVCParamIPv4Hint)
	for ; len(v4) >= 4; v4 = v4[4:] {
		r.add(owner, netip.AddrFrom4([4]byte(v4)), ttl, nil)
	}
	v6, _ := s.GetParam(dnsmessage.SVCParamIPv6Hint)
	for ; len(v6) >= 16; v6 = v6[16:] {
		r.add(owner, netip.AddrFrom16([16]byte(v6)).Unmap(), ttl, nil)
	}
}

// answerTTL: "a TTL … should be treated as zero if the most significant bit is set" (RFC 2181, 8).
func answerTTL(seconds uint32) time.Duration {
	if seconds >= 1<<31 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// resolve follows the aliases from the asked name and gathers the addresses on the way.
func (r *answerRecordSet) resolve(asked string) Answer {
	out := Answer{Names: []string{asked}}
	at := map[string]int{asked: 0}
	ttls := []time.Duration{1<<63 - 1} // the shortest up to each name
	for len(out.Names) <= answerChain {
		last := len(out.Names) - 1
		next, ok := r.aliases[out.Names[last]]
		if _, seen := at[next.to]; !ok || seen {
			break
		}
		at[next.to] = last + 1
		out.Names, ttls = append(out.Names, next.to), append(ttls, min(ttls[last], next.ttl))
	}
	for _, a := range r.addrs {
		if i, ok := at[a.owner]; ok {
			out.Addrs = append(out.Addrs, AnswerAddr{a.addr, i, min(ttls[i], a.ttl)})
		}
	}
	if len(out.Addrs) == 0 {
		return Answer{}
	}
	return out
}
