package firewall

import "encoding/binary"

// attrs builds netlink attributes in place. Every number is big-endian, as nf_tables wants.
type attrs []byte

const (
	nlaNested = 0x8000
	nlaType   = 0x3fff
)

func (a *attrs) bytes(kind uint16, v []byte) {
	*a = binary.NativeEndian.AppendUint16(*a, uint16(4+len(v)))
	*a = binary.NativeEndian.AppendUint16(*a, kind)
	*a = append(*a, v...)
	a.pad()
}

func (a *attrs) text(kind uint16, v string) {
	*a = binary.NativeEndian.AppendUint16(*a, uint16(4+len(v)))
	*a = binary.NativeEndian.AppendUint16(*a, kind)
	*a = append(*a, v...)
	a.pad()
}

// name is a text with the zero byte that names need.
func (a *attrs) name(kind uint16, v string) { a.text(kind, v+"\x00") }

func (a *attrs) u32(kind uint16, v uint32) {
	*a = binary.NativeEndian.AppendUint16(*a, 8)
	*a = binary.NativeEndian.AppendUint16(*a, kind)
	*a = binary.BigEndian.AppendUint32(*a, v)
}

func (a *attrs) u64(kind uint16, v uint64) {
	*a = binary.NativeEndian.AppendUint16(*a, 12)
	*a = binary.NativeEndian.AppendUint16(*a, kind)
	*a = binary.BigEndian.AppendUint64(*a, v)
}

// nest encloses what f writes.
func (a *attrs) nest(kind uint16, f func()) {
	at := len(*a)
	*a = binary.NativeEndian.AppendUint16(*a, 0)
	*a = binary.NativeEndian.AppendUint16(*a, kind|nlaNested)
	f()
	binary.NativeEndian.PutUint16((*a)[at:], uint16(len(*a)-at))
}

func (a *attrs) pad() {
	for len(*a)%4 != 0 {
		*a = append(*a, 0)
	}
}

// attr is one attribute read back.
type attr struct {
	kind uint16
	data []byte
}

// readAttrs splits attributes; what does not parse ends the list.
func readAttrs(b []byte) []attr {
	var out []attr
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		out = append(out, attr{binary.NativeEndian.Uint16(b[2:]) & nlaType, b[4:n]})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

// find gives the data of the first attribute of a kind, nil where there is none.
func find(list []attr, kind uint16) []byte {
	for _, a := range list {
		if a.kind == kind {
			return a.data
		}
	}
	return nil
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func be64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// cstring is text up to the zero byte.
func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
