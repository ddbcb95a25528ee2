package main

import (
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// splitDocuments cuts a YAML stream at its --- lines. Comments stay with the document they are in.
func splitDocuments(text string) []string {
	var docs []string
	var doc strings.Builder
	flush := func() {
		if strings.TrimSpace(doc.String()) != "" {
			docs = append(docs, doc.String())
		}
		doc.Reset()
	}
	for line := range strings.Lines(text) {
		if strings.TrimRight(line, " \r\n") == "---" {
			flush()
			continue
		}
		doc.WriteString(line)
	}
	flush()
	return docs
}

// decodeDocuments reads every document of a stream that is not comments only.
func decodeDocuments(text string) ([]map[string]any, error) {
	objects := []map[string]any{}
	for _, doc := range splitDocuments(text) {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			return nil, fmt.Errorf("read the daemon's policies: %w", err)
		}
		if len(object) > 0 {
			objects = append(objects, object)
		}
	}
	return objects, nil
}
