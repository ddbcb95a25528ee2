package policy

import "go.yaml.in/yaml/v3"

type field struct{ key, value *yaml.Node }

// fields lists a mapping's keys and values, with what merge keys ("<<") bring in. A key of its own
// wins over a merged one; the same key twice is an error.
func (d *decoder) fields(n *yaml.Node) []field {
	var out []field
	var merged []*yaml.Node
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			merged = append(merged, value)
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			d.add(n.Content[i], "the key is %s; want a string", describe(key))
		case seen[key.Value]:
			d.add(n.Content[i], "%q is given twice", key.Value)
		default:
			seen[key.Value] = true
			out = append(out, field{n.Content[i], value})
			out[len(out)-1].key = keyAt(n.Content[i], key.Value)
		}
	}
	for _, m := range merged {
		d.merge(m, seen, &out, 0)
	}
	return out
}

// keyAt is a key where it stands, with its text also where it is an alias.
func keyAt(at *yaml.Node, text string) *yaml.Node {
	if at.Kind != yaml.AliasNode {
		return at
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text, Line: at.Line, Column: at.Column}
}

// maxMerges bounds merge keys within merge keys; people use one level.
const maxMerges = 8

func (d *decoder) merge(m *yaml.Node, seen map[string]bool, out *[]field, depth int) {
	at := m
	if m.Kind == yaml.AliasNode {
		m = m.Alias
	}
	switch {
	case depth > maxMerges:
		d.add(at, "merge keys within merge keys, more than %d deep", maxMerges)
	case m.Kind == yaml.SequenceNode:
		for _, item := range m.Content {
			d.merge(item, seen, out, depth+1)
		}
	case m.Kind != yaml.MappingNode:
		d.add(at, "want a mapping to merge, got %s", describe(m))
	default:
		for i := 0; i+1 < len(m.Content); i += 2 {
			key := m.Content[i]
			if d.visited++; d.visited > maxNodes {
				return
			}
			if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
				d.merge(m.Content[i+1], seen, out, depth+1)
			} else if !seen[key.Value] {
				seen[key.Value] = true
				*out = append(*out, field{key, m.Content[i+1]})
			}
		}
	}
}
