// Package netpol holds policies against real packets. Its corpus is plain files: an inventory, and a
// folder per case with policies and probes.json, whose "expect" says what upstream's documents say, in
// the sentence of "because". Anybody can put a case to both sides by hand (docs/conformance.md):
//
//	bulkhead policy verdicts -f corpus/town/inventory.yaml -f corpus/town/CASE --probes corpus/town/CASE/probes.json
//	bulkhead-lab up -f corpus/town/inventory.yaml -f corpus/town/CASE; bulkhead-lab probe --probes …
//
// The tests put all of it to the evaluator and to the kernel, and then random clusters with random
// policies of every kind: compiled by the daemons into namespaces, probed with real packets, compared
// verdict by verdict. What differs is made as small as it gets and left as files.
//
// Everything here is tests; nothing imports this package.
package netpol
