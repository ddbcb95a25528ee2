// Package schema holds the JSON Schema (draft-07) of bulkhead.dev/v1alpha1 Policy, for editors and for
// checks without this program. It is generated from the types of package policy and the comments of
// their fields by this package's test: go test ./policy/schema -update.
//
// The schema says what a document looks like; [policy.Parse] says more, such as that an exception lies
// within its block. What the parser takes, the schema takes, but for a spec that is left out and for
// keys without a value.
package schema

import _ "embed"

// Name is the file's name, in docs/schema too.
const Name = "bulkhead.dev_v1alpha1_Policy.json"

//go:embed bulkhead.dev_v1alpha1_Policy.json
var policySchema []byte

// Policy is the schema of the native kind, as JSON text.
func Policy() []byte { return policySchema }
