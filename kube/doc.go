// Package kube reads what Kubernetes knows of a cluster: namespaces, pods, services. Its main
// types are [Inventory], which manifests on disk are read into with [ReadDir], [ReadFiles] and
// [ParseManifests], and [Document], a policy found among them.
//
// It never judges: policies are handed on as text for package policy to parse, and it never talks
// to a kernel.
package kube
