package sign

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// File signs the documents of a file, and says how many. Comments and layout stay. Those that hold a
// good signature of the key already are left as they are, unless renew asks for a new one. Errors: a
// document that cannot be signed, by its number; nothing is given then.
func File(text []byte, key ed25519.PrivateKey, now time.Time, renew bool) ([]byte, int, error) {
	var out []byte
	n := 0
	for i, part := range policy.Split(text) {
		signed, changed, err := Text(part, key, now, renew)
		switch {
		case errors.Is(err, ErrEmpty):
			signed = part
		case err != nil:
			return nil, 0, fmt.Errorf("document %d: %w", i+1, err)
		case changed:
			n++
		}
		out = append(out, signed...)
	}
	return out, n, nil
}

// Text signs one document. False: it was signed by that key already.
func Text(text []byte, key ed25519.PrivateKey, now time.Time, renew bool) ([]byte, bool, error) {
	d, err := Open(text)
	if err != nil {
		return nil, false, err
	}
	if strings.HasSuffix(d.kind, "List") {
		return nil, false, fmt.Errorf("a %s: sign its items as documents of their own", d.kind)
	}
	public := key.Public().(ed25519.PublicKey)
	s := Signature{Key: Fingerprint(public), At: now.UTC().Truncate(time.Millisecond), Cluster: d.note(ClusterAnnotation)}
	if old, err := d.Signature(); err == nil {
		if !renew && old.Key == s.Key && d.verify(old, public) == nil {
			return text, false, nil
		}
		// Later than what it takes the place of, whatever the clock says.
		if !s.At.After(old.At) {
			s.At = old.At.Add(time.Millisecond)
		}
	}
	b, err := d.signed(s.At)
	if err != nil {
		return nil, false, err
	}
	s.bytes = ed25519.Sign(key, b)
	trust := Trust{keys: map[string]ed25519.PublicKey{s.Key: public}}
	for _, write := range []func(Signature) ([]byte, error){d.insert, d.rewrite} {
		out, err := write(s)
		if err != nil {
			continue
		}
		if _, err := trust.Verify(out); err == nil {
			return out, true, nil
		}
	}
	return nil, false, errors.New("the signature cannot be written into metadata.annotations; write the document as plain YAML in block style")
}

var errLayout = errors.New("not a layout that lines can be added to")

// insert writes the annotation as a line of its own, and leaves all others as they are.
func (d *Document) insert(s Signature) ([]byte, error) {
	line := fmt.Sprintf("%s: %q", Annotation, s)
	lines := strings.SplitAfter(string(d.text), "\n")
	_, meta := pair(d.root, "metadata")
	if meta == nil || meta.Style&yaml.FlowStyle != 0 || len(meta.Content) == 0 {
		return nil, errLayout
	}
	notesKey, notes := pair(meta, "annotations")
	if notes == nil {
		name, _ := pair(meta, "name")
		if name == nil || name.Line > len(lines) {
			return nil, errLayout
		}
		at := strings.Repeat(" ", name.Column-1)
		return splice(lines, name.Line, 0, at+"annotations:", at+"  "+line), nil
	}
	if notes.Style&yaml.FlowStyle != 0 || len(notes.Content) == 0 {
		return nil, errLayout
	}
	at := strings.Repeat(" ", notes.Content[0].Column-1)
	if old, _ := pair(notes, Annotation); old != nil {
		return splice(lines, old.Line-1, 1, at+line), nil
	}
	return splice(lines, notesKey.Line, 0, at+line), nil
}

// splice puts lines in after the first n, in the place of some.
func splice(lines []string, n, replaced int, fresh ...string) []byte {
	for i := range fresh {
		fresh[i] += "\n"
	}
	if n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
		lines[n-1] += "\n"
	}
	return []byte(strings.Join(slices.Concat(lines[:n], fresh, lines[n+replaced:]), ""))
}

// rewrite prints the document anew, with its comments: JSON, and mappings in braces.
func (d *Document) rewrite(s Signature) ([]byte, error) {
	_, meta := pair(d.root, "metadata")
	if meta == nil {
		return nil, errLayout
	}
	_, notes := pair(meta, "annotations")
	if notes == nil || notes.Kind != yaml.MappingNode {
		notes = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: meta.Style}
		meta.Content = append(meta.Content, text("annotations"), notes)
	}
	if _, old := pair(notes, Annotation); old != nil {
		*old = *text(s.String())
	} else {
		notes.Content = append(notes.Content, text(Annotation), text(s.String()))
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(d.root); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(d.text, []byte("---")) {
		return append([]byte("---\n"), b.Bytes()...), nil
	}
	return b.Bytes(), nil
}

func text(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}
}

// pair finds a field of a mapping.
func pair(n *yaml.Node, key string) (k, v *yaml.Node) {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}
