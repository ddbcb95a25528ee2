package identity

import (
	"encoding/binary"
	"maps"
	"slices"
	"unique"
)

// maxInterned bounds how many different sets of each kind are looked for; it is then begun anew.
const maxInterned = 16_384

// interned keeps one copy of what many workloads have in common: all replicas of a service have the same
// labels and ports, all of a namespace its labels. What it gives must not be written to.
type interned struct {
	labels map[string]Labels
	ports  map[string][]ContainerPort
	key    []byte // room to write keys in
}

func newInterned() interned {
	return interned{labels: map[string]Labels{}, ports: map[string][]ContainerPort{}}
}

func (in *interned) labelsOf(l Labels) Labels {
	if l == nil {
		return nil
	}
	in.key = in.key[:0]
	for _, k := range slices.Sorted(maps.Keys(l)) {
		for _, s := range []string{k, l[k]} {
			in.key = binary.AppendUvarint(in.key, uint64(len(s)))
			in.key = append(in.key, s...)
		}
	}
	return keep(in.labels, in.key, func() Labels {
		out := make(Labels, len(l))
		for k, v := range l {
			out[unique.Make(k).Value()] = unique.Make(v).Value()
		}
		return out
	})
}

func (in *interned) portsOf(ports []ContainerPort) []ContainerPort {
	if ports == nil {
		return nil
	}
	in.key = in.key[:0]
	for _, p := range ports {
		in.key = binary.AppendUvarint(in.key, uint64(len(p.Name)))
		in.key = append(in.key, p.Name...)
		in.key = append(in.key, byte(p.Protocol))
		in.key = binary.BigEndian.AppendUint16(in.key, p.Port)
	}
	return keep(in.ports, in.key, func() []ContainerPort { return slices.Clone(ports) })
}

func keep[T any](known map[string]T, key []byte, clone func() T) T {
	if v, ok := known[string(key)]; ok {
		return v
	}
	if len(known) >= maxInterned {
		clear(known)
	}
	v := clone()
	known[string(key)] = v
	return v
}

// textOf gives the one copy of a text that is used often.
func textOf(s string) string { return unique.Make(s).Value() }
