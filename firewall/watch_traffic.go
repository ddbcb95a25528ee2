package firewall

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// sizeofTcMsg is the size of struct tcmsg (uapi/linux/rtnetlink.h).
const sizeofTcMsg = 20

type watchQdisc struct {
	link   int32
	handle uint32
	kind   string
}

// traffic reads struct tcmsg and its attributes: a qdisc or a filter of traffic control. Filters of
// clsact stand behind our own chain on egress.
func (p *watchPicture) traffic(message uint16, body []byte) (Event, bool) {
	const tcaKind = 1
	q := watchQdisc{link: int32(binary.NativeEndian.Uint32(body[4:])), handle: binary.NativeEndian.Uint32(body[8:])}
	for kind, v := range decodeAttributes(body[sizeofTcMsg:]) {
		if kind == tcaKind {
			q.kind = watchText(v)
		}
	}
	e := Event{Time: time.Now(), Kind: EventTraffic, Index: int(q.link)}
	if message == unix.RTM_NEWTFILTER {
		e.What = fmt.Sprintf("a filter of traffic control (%s) was added to interface %s", q.kind, p.name(q.link))
		return e, true
	}
	if message == unix.RTM_DELQDISC {
		delete(p.qdiscs, q)
		return e, false
	}
	if _, known := p.qdiscs[q]; known {
		return e, false
	}
	if len(p.qdiscs) < watchMaxQdiscs {
		p.qdiscs[q] = struct{}{}
	}
	if q.handle == 0 {
		return e, false // the one that an interface has by itself
	}
	e.What = fmt.Sprintf("the qdisc %s was added to interface %s", q.kind, p.name(q.link))
	return e, true
}
