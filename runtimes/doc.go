// Package runtimes asks the container runtimes of this node for the labels of a container that is
// just being made. Its main types are [Sources] and [Found].
//
// A CNI ADD brings a name at most, never labels, and while it lasts the runtime is busy with that
// very container: Podman holds its lock, so that inspect and ps wait for ADD to return, and
// containerd's CRI does not know the pod yet. Whoever asks there from within ADD waits for himself.
// Asked here is only what answers meanwhile:
//
//	containerd 1.x   its own API: the container's record (containers.v1)
//	containerd 2.x   its own API: the sandbox's record (sandbox.v1)
//	Podman 4, 5      the event log, where "create" comes before ADD with all labels
//
// Nothing is changed in a runtime, no image is read, and a runtime that is not there is no error.
// Labels of the image are among those of Podman and nerdctl, as these tools have it: who does not
// trust an image sets the labels that matter when running it.
package runtimes
