package firewall

import (
	"time"

	"github.com/bulkhead-firewall/bulkhead/flow"
)

// readerDesk is what reading needs and nobody keeps: one serves all logs that one goroutine reads.
type readerDesk struct {
	buf     []byte // nil where the socket has its own
	parser  *decodeParser
	entries []logEntry // of one read
}

func newReaderDesk() *readerDesk { return &readerDesk{parser: newDecodeParser()} }

// logEntry is one record on its way.
type logEntry struct {
	record    flow.Record
	indev     int
	key       logKey
	confirmed bool
}

// batch reads the messages of one read, and hands on what is confirmed. It says how many there were.
func (r *Reader) batch(desk *readerDesk, b []byte, now time.Time, f func(flow.Record, int)) (messages int) {
	desk.entries = desk.entries[:0]
	for msg := range kernelMessages(b) {
		if msg.kind != nflogPacket {
			continue // the end of a batch
		}
		messages++
		r.message(desk, msg.body, now)
	}
	if r.confirm != nil && !r.hold(desk.entries) {
		return messages
	}
	for i := range desk.entries {
		e := &desk.entries[i]
		if r.confirm != nil && e.key.peer.IsValid() && !e.confirmed {
			r.forged.Add(1)
			continue
		}
		r.records.Add(1)
		f(e.record, e.indev)
	}
	return messages
}

// hold holds the entries against the sets; false says that nothing is known of any.
func (r *Reader) hold(entries []logEntry) bool {
	for try := 1; ; try++ {
		err := r.confirm.confirm(entries)
		if err == nil {
			return true
		}
		if try == applyTries {
			r.doubtful.Add(uint64(len(entries)))
			return false
		}
	}
}

// message adds one message to the desk's entries, unless no record can be made of it.
func (r *Reader) message(desk *readerDesk, body []byte, now time.Time) {
	m, ok := nflogParse(body)
	if m.sequenced {
		r.lost.Add(uint64(m.sequence - r.next)) // in 32 bits, so that it may wrap
		r.next = m.sequence + 1
	}
	if !ok {
		r.malformed.Add(1)
		return
	}
	e := logEntry{record: flow.Record{Time: now, Workload: r.cfg.Workload}, indev: m.indev}
	switch decodeRecord(desk.parser, &m, &e.record) {
	case decodeForeign:
		r.foreign.Add(1)
		return
	case decodeMalformed:
		r.malformed.Add(1)
		return
	case decodePartial:
		r.malformed.Add(1)
	}
	e.key = desk.parser.key
	desk.entries = append(desk.entries, e)
}
