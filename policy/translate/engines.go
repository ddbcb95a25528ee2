package translate

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// State is what an engine is known to do with a field.
type State string

const (
	Supported State = "supported"
	Partial   State = "partial" // see the note
	Ignored   State = "ignored" // taken in silence and not done
	Refused   State = "refused" // not done, and said so
)

// Engine is one of the programs that enforce NetworkPolicies, with what is known of it.
type Engine struct {
	Name   string              `yaml:"name"`
	Title  string              `yaml:"title"`
	Fields map[Field]Statement `yaml:"fields"`
}

// Statement is what is known of one engine and one field.
type Statement struct {
	State  State  `yaml:"state" json:"state"`
	Since  string `yaml:"since" json:"since,omitempty"` // release; empty: not said
	Until  string `yaml:"until" json:"until,omitempty"` // the last release of which it holds
	Note   string `yaml:"note" json:"note"`
	Source string `yaml:"source" json:"source"` // URL
	Title  string `yaml:"title" json:"title"`   // of the document or thread
	AsOf   string `yaml:"asOf" json:"asOf"`     // year and month
}

// Versions says of which releases the statement holds, "" when of all.
func (s Statement) Versions() string {
	switch {
	case s.Since != "" && s.Until != "":
		return s.Since + " to " + s.Until
	case s.Since != "":
		return "since " + s.Since
	case s.Until != "":
		return "up to " + s.Until
	}
	return ""
}

//go:embed engines.yaml
var enginesYAML []byte

// Engines lists the engines of engines.yaml, by name.
var Engines = sync.OnceValue(func() []Engine {
	list, err := readEngines(enginesYAML)
	if err != nil {
		panic(fmt.Sprintf("translate: engines.yaml: %v", err)) // a test reads it
	}
	return list
})

func readEngines(data []byte) ([]Engine, error) {
	var doc struct {
		Engines []Engine `yaml:"engines"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	slices.SortFunc(doc.Engines, func(a, b Engine) int { return strings.Compare(a.Name, b.Name) })
	return doc.Engines, nil
}

// FindEngine gives an engine by name; false: there is none of that name.
func FindEngine(name string) (Engine, bool) {
	i := slices.IndexFunc(Engines(), func(e Engine) bool { return e.Name == name })
	if i < 0 {
		return Engine{}, false
	}
	return Engines()[i], true
}

// Verdict is what one engine makes of one use of a field.
type Verdict struct {
	Engine string `json:"engine"`
	Use
	Statement
}

// Ask says what an engine is known to do with uses: what it ignores, refuses or does in part; and
// which fields nothing is known of. A field that the engine is known to support is in neither.
//
// An engine that ignores NetworkPolicy as such ignores each of its fields; that is said once.
func (e Engine) Ask(uses []Use) (trouble []Verdict, unknown []Field) {
	seen := map[Field]bool{}
	for _, u := range uses {
		s, known := e.Fields[u.Field]
		switch {
		case !known && u.Field == FieldNative:
			s = nativeStatement
		case !known:
			if whole, ok := e.Fields[FieldNetworkPolicy]; ok && whole.State == Ignored {
				continue
			}
			if !seen[u.Field] && !basic[u.Field] {
				unknown = append(unknown, u.Field)
			}
			seen[u.Field] = true
			continue
		case s.State == Supported && s.Versions() == "":
			continue
		}
		trouble = append(trouble, Verdict{e.Name, u, s})
	}
	slices.Sort(unknown)
	return trouble, unknown
}

// nativeStatement is what every other engine does with the native kind.
var nativeStatement = Statement{
	State: Ignored, Note: "no other engine reads " + policy.NativeVersion + "; convert it first",
	Source: "https://github.com/bulkhead-firewall/bulkhead/blob/main/docs/convert.md", Title: "Bulkhead documentation, convert", AsOf: "2026-11",
}
