package flow

import (
	"bytes"
	"fmt"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Render writes suggestions as one YAML stream. The same suggestions give the same bytes.
func Render(list []Suggestion) ([]byte, error) {
	var out bytes.Buffer
	for i, s := range list {
		if i > 0 {
			out.WriteString("---\n")
		}
		if s.Policy == nil {
			for _, n := range s.Notes {
				out.WriteString("# " + clean(n) + "\n")
			}
			continue
		}
		text, err := policy.Marshal(*s.Policy)
		if err != nil {
			return nil, fmt.Errorf("write policy %s: %w", s.Service, err)
		}
		out.Write(bytes.TrimPrefix(text, []byte("---\n")))
	}
	return out.Bytes(), nil
}
