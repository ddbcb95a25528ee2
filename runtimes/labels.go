package runtimes

import (
	"slices"
	"strings"
)

// What this room chose: who runs a container chooses its labels, and each costs memory in every
// index.
const (
	maxLabels     = 256  // of one container
	maxLabelKey   = 317  // bytes; a Kubernetes key: 253 of prefix, a slash, 63 of name
	maxLabelValue = 1024 // bytes; selectors match 63
)

// Labels that Kubernetes and nerdctl put on every container to say where it belongs.
const (
	podName      = "io.kubernetes.pod.name"
	podNamespace = "io.kubernetes.pod.namespace"
	nerdctlName  = "nerdctl/name"
)

// bookkeeping are the prefixes of labels by which runtimes keep their own books. They hold paths,
// ids and digests: an identity made of them would be another one for each container.
var bookkeeping = []string{"io.cri-containerd.", "io.kubernetes.", "io.containerd.", "containerd.io/", "nerdctl/", "io.buildah."}

// ofContainer is labels without bookkeeping and within bounds. What is too long for a selector
// is left out, and of too many labels the first in order stay, so that asking again gives the same.
func ofContainer(labels map[string]string) map[string]string {
	var kept []string
	for key, value := range labels {
		own := slices.ContainsFunc(bookkeeping, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
		if !own && key != "" && len(key) <= maxLabelKey && len(value) <= maxLabelValue {
			kept = append(kept, key)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	slices.Sort(kept)
	out := map[string]string{}
	for _, key := range kept[:min(len(kept), maxLabels)] {
		out[key] = strings.Clone(labels[key])
	}
	return out
}
