package firewall

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// watchPhrases bounds how much of one transaction is told.
	watchPhrases = 6

	// Source: enum nft_gen_attributes in uapi/linux/netfilter/nf_tables.h.
	nftaGenProcPID  = 2 // of the thread, in the machine's first PID namespace
	nftaGenProcName = 3
)

// watchChange is what one transaction did, gathered until its end tells whose it was.
type watchChange struct {
	generation uint16 // of the ruleset that it made; zero before its first message
	event      Event
	phrases    []string
	last       watchPhrase
	count      int // how many of it
	more       int // phrases beyond the bound
}

// watchVerbs says which messages tell of a change, and of what.
var watchVerbs = map[uint16]struct{ noun, verb string }{
	unix.NFT_MSG_NEWTABLE: {"table", "added"}, unix.NFT_MSG_DELTABLE: {"table", "deleted"},
	unix.NFT_MSG_NEWCHAIN: {"chain", "added"}, unix.NFT_MSG_DELCHAIN: {"chain", "deleted"},
	unix.NFT_MSG_NEWRULE: {"rule", "added"}, unix.NFT_MSG_DELRULE: {"rule", "deleted"},
	unix.NFT_MSG_NEWSET: {"set", "added"}, unix.NFT_MSG_DELSET: {"set", "deleted"},
	unix.NFT_MSG_NEWSETELEM: {"element", "added"}, unix.NFT_MSG_DELSETELEM: {"element", "deleted"},
	unix.NFT_MSG_NEWOBJ: {"object", "added"}, unix.NFT_MSG_DELOBJ: {"object", "deleted"},
	unix.NFT_MSG_NEWFLOWTABLE: {"flowtable", "added"}, unix.NFT_MSG_DELFLOWTABLE: {"flowtable", "deleted"},
}

var watchFamilies = map[byte]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

// note adds one message of a transaction.
func (c *watchChange) note(m kernelMessage) {
	v, ok := watchVerbs[m.kind&0xff]
	if !ok {
		return
	}
	var at [8][]byte // the attributes that are read: 1 to 7
	for kind, data := range decodeAttributes(m.body[nfgenmsgSize:]) {
		if int(kind) < len(at) {
			at[kind] = data
		}
	}
	table := watchFamilies[m.body[0]] + " " + watchText(at[1]) // NFTA_*_TABLE and NFTA_TABLE_NAME are 1
	name := ""
	switch v.noun {
	case "chain":
		name = watchText(at[unix.NFTA_CHAIN_NAME])
	case "rule", "set", "element", "object", "flowtable": // NFTA_RULE_CHAIN, NFTA_*_NAME
		name = watchText(at[2])
	}
	if c.event.Table == "" {
		c.event.Table = table
	}
	if c.event.Chain == "" && (v.noun == "chain" || v.noun == "rule") {
		c.event.Chain = name
	}
	if table == tripwireName && m.kind&0xff == unix.NFT_MSG_DELTABLE {
		c.event.Flushed = true
		return
	}
	p := watchPhrase{noun: v.noun, of: table + " " + name, verb: v.verb}
	switch v.noun {
	case "table":
		p.of = table
	case "chain":
		p.of += watchHook(m.body[0], at[unix.NFTA_CHAIN_HOOK])
	case "rule":
		p.of = "chain " + p.of
	case "element":
		p.of = "set " + p.of
	}
	c.say(p)
}

// watchPhrase is what happened to one thing, or to several of one place.
type watchPhrase struct{ noun, of, verb string }

func (p watchPhrase) text(n int) string {
	switch {
	case p.noun != "rule" && p.noun != "element":
		return fmt.Sprintf("%s %s was %s", p.noun, p.of, p.verb)
	case n > 1:
		return fmt.Sprintf("%d %ss of %s were %s", n, p.noun, p.of, p.verb)
	case p.noun == "element":
		return fmt.Sprintf("an element of %s was %s", p.of, p.verb)
	}
	return fmt.Sprintf("a rule of %s was %s", p.of, p.verb)
}

// say adds a phrase, or counts the one before.
func (c *watchChange) say(p watchPhrase) {
	if p != c.last {
		c.flush()
		c.last = p
	}
	c.count++
}

// flush ends the phrase that is being counted.
func (c *watchChange) flush() {
	switch {
	case c.count == 0:
	case len(c.phrases) < watchPhrases:
		c.phrases = append(c.phrases, c.last.text(c.count))
	default:
		c.more++
	}
	c.count = 0
}

// end closes a transaction; foreign is false for one of ours.
func (c *watchChange) end(gen kernelMessage, own func(port uint32, thread int) bool, now time.Time) (e Event, foreign bool) {
	e = c.event
	e.Time, e.Kind = now, EventNftables
	for kind, v := range decodeAttributes(gen.body[nfgenmsgSize:]) {
		switch kind {
		case nftaGenProcPID:
			e.PID = int(be32(v))
		case nftaGenProcName:
			e.Process = watchText(v)
		}
	}
	if own(gen.port, e.PID) {
		return e, false
	}
	c.flush()
	if e.Flushed {
		c.phrases = append([]string{"the ruleset was flushed, or table " + tripwireName + " deleted"}, c.phrases...)
	}
	if c.more > 0 {
		c.phrases = append(c.phrases, fmt.Sprintf("and %d more", c.more))
	}
	e.What = strings.Join(c.phrases, ", ")
	if e.What == "" {
		e.What = "the ruleset was changed"
	}
	return e, true
}

// watchHooks are the hooks of the families that see IP packets, then those of netdev.
// Source: enum nf_inet_hooks and nf_dev_hooks in uapi/linux/netfilter.h.
var (
	watchHooks       = [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	watchNetdevHooks = [...]string{"ingress", "egress"}
)

// watchHook says where a base chain hangs: " (hook output, priority -300)".
func watchHook(family byte, nested []byte) string {
	if nested == nil {
		return ""
	}
	var number, priority uint32
	for kind, v := range decodeAttributes(nested) {
		switch kind {
		case unix.NFTA_HOOK_HOOKNUM:
			number = be32(v)
		case unix.NFTA_HOOK_PRIORITY:
			priority = be32(v)
		}
	}
	hooks := watchHooks[:]
	if family == byte(FamilyNetdev) {
		hooks = watchNetdevHooks[:]
	}
	name := "?"
	if int(number) < len(hooks) {
		name = hooks[number]
	}
	return fmt.Sprintf(" (hook %s, priority %d)", name, int32(priority))
}
