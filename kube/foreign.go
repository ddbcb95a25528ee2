package kube

import (
	"bytes"
	"encoding/json"
)

// Foreign says whether a file is JSON and certainly no manifest: a list, or an object without kind. In a
// folder of manifests such a file belongs to somebody else: probes, a report, an editor's settings.
func Foreign(data []byte) bool {
	data = bytes.TrimSpace(data)
	if !json.Valid(data) {
		return false
	}
	var o struct {
		Kind json.RawMessage `json:"kind"`
	}
	return data[0] != '{' || json.Unmarshal(data, &o) == nil && o.Kind == nil
}
