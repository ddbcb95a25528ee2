// Package shop is a demo shop made of real listeners and clients: the service graph of Google's
// Online Boutique (graph.yaml: facts read from its public manifests and code; see the file's
// source), Kubernetes manifests for it (shop.yaml, made by [Manifests]), and a player for each of
// its services.
//
// One process of cmd/shop plays one service inside its workload's namespace, with [Play]. Peers are
// found as in a cluster: by name at kube-dns, then through the Service's virtual address. Every
// call is counted per edge, so that a demo or a test can say how many failed.
//
// It knows nothing of policies: it is what they are learned from.
package shop

//go:generate sh -c "go run ./cmd/shop manifests > shop.yaml.new && mv shop.yaml.new shop.yaml"
