package identity

import (
	"regexp"
	"strings"
)

// DefaultLabelOrder is which label names a service, the first found wins.
var DefaultLabelOrder = []string{"app.kubernetes.io/name", "app", "k8s-app", "name"}

// What controllers append to the names of what they make. The alphabet is that of
// k8s.io/apimachinery/pkg/util/rand: no vowels and no digits that look like one.
var (
	replicaSuffix = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$`)
	randomSuffix  = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{5}$`)
	ordinalSuffix = regexp.MustCompile(`-[0-9]{1,4}$`)
)

// words are what people write that looks as if it were random.
var words = map[string]bool{"-https": true, "-http2": true, "-html5": true}

// ServiceOf names the service of a workload: its namespace, and the first of the labels in order
// (nil: [DefaultLabelOrder]) that is there and not empty. Without any, it is name, the owner's or
// the pod's own, without what controllers append to it: a pod's random name never names a service.
func ServiceOf(ns, name string, l Labels, order []string) Service {
	if len(order) == 0 {
		order = DefaultLabelOrder
	}
	for _, key := range order {
		if v := l[key]; v != "" {
			return Service{Namespace: ns, Name: v}
		}
	}
	return Service{Namespace: ns, Name: ownerOf(name, l)}
}

// ownerOf strips the suffixes of ReplicaSets, StatefulSets, DaemonSets and Jobs. Labels that the
// controllers set tell which it was; without labels the shape of the name has to do.
func ownerOf(name string, l Labels) string {
	if hash := l["pod-template-hash"]; hash != "" {
		if i := strings.LastIndex(name, "-"+hash); i > 0 {
			return name[:i]
		}
	}
	if len(l) == 0 || l["statefulset.kubernetes.io/pod-name"] == name {
		if s := strip(ordinalSuffix, name); s != name {
			return s
		}
	}
	if s := strip(replicaSuffix, name); s != name {
		return s
	}
	_, daemon := l["controller-revision-hash"]
	_, job := l["batch.kubernetes.io/job-name"]
	_, oldJob := l["job-name"]
	if (daemon || job || oldJob || len(l) == 0) && !words[randomSuffix.FindString(name)] {
		return strip(randomSuffix, name)
	}
	return name
}

// strip never leaves an empty name.
func strip(suffix *regexp.Regexp, name string) string {
	if at := suffix.FindStringIndex(name); at != nil && at[0] > 0 {
		return name[:at[0]]
	}
	return name
}
