// Package runtime tests Bulkhead under the container runtimes of the distribution: Podman and
// containerd (by its CRI) run containers through a CNI chain that ends with bulkhead-cni, and ask
// nobody but a real bulkheadd.
//
//	machine ── untouched; the tests start one process in namespaces of its own:
//	node    ── network, mount and process namespaces, whose init reaps and is all that has to die
//	           bulkheadd, podman or containerd, cni0 10.88.0.1 ── veth ── containers
//	           out 192.0.2.254 ── veth ── world 192.0.2.1, a namespace that counts who reaches it
//
// /run, /var/lib and /dev/shm are the node's own and /etc is written to a copy, so that runtimes
// which keep state outside of their folders meet no other of the machine, and all of it ends with
// the node.
package runtime
