package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

const (
	// peersWait bounds how long ADD waits until the workloads of this node know the new one.
	peersWait = 250 * time.Millisecond
	// maxWorkloads bounds the workloads of one node; each costs a goroutine and some sockets.
	maxWorkloads = 4096
	// maxInterfaces bounds the interfaces of one workload.
	maxInterfaces = 16
	// maxLabels bounds what one request may bring.
	maxLabels = 256
)

// CNI carries out what the plugin was told. Errors are [api.Error].
func (d *Daemon) CNI(ctx context.Context, req api.CNIRequest) error {
	switch req.Command {
	case "ADD":
		return d.attachAs(ctx, req, true)
	case "DEL":
		d.detach(ctx, req.ContainerID, req.IfName, "DEL")
		return nil
	case "CHECK":
		return d.checkAttachment(ctx, req)
	case "GC":
		d.collect(ctx, req.Network, req.Valid)
		return nil
	case "STATUS":
		return d.ready()
	}
	return refuse(api.BadRequest, "command %q: want ADD, CHECK, DEL, GC or STATUS", req.Command)
}

// ready says whether an ADD could be taken.
func (d *Daemon) ready() error {
	if err := d.store.Healthy(); err != nil {
		return refuse(api.NotReady, "%w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.workloads) >= maxWorkloads {
		return refuse(api.NotReady, "%d workloads, bound %d", len(d.workloads), maxWorkloads)
	}
	return nil
}

// attach takes a workload over, or one more interface of one. It returns when its rules are in
// force, and its peers on this node know it. The same request again changes nothing. startSeen says
// that the container does nothing before we return.
func (d *Daemon) attachAs(ctx context.Context, req api.CNIRequest, startSeen bool) error {
	if req.ContainerID == "" || req.NetNS == "" || len(req.Interfaces) == 0 {
		return refuse(api.BadRequest, "ADD wants containerID, netns and interfaces")
	}
	if len(req.Interfaces) > maxInterfaces || len(req.Labels) > maxLabels || len(req.Args) > maxLabels {
		return refuse(api.BadRequest, "ADD with %d interfaces, %d labels: bounds %d, %d", len(req.Interfaces), len(req.Labels), maxInterfaces, maxLabels)
	}
	if err := d.ready(); err != nil {
		return err
	}
	record, ns, err := d.describe(req)
	if err != nil {
		return err
	}
	defer ns.Close()
	record.StartSeen = startSeen
	late := d.identify(ctx, req, &record)
	d.attaching.Lock() // one ADD or DEL at a time changes who is here
	before := d.index.Generation()
	w, known, err := d.admit(record)
	d.attaching.Unlock()
	if err != nil {
		return err
	}
	var began *start
	if !known {
		began = d.cluster.greet(w, before)
	}
	if err := w.sync(ctx, "attach"); err != nil {
		if !known {
			d.detach(context.WithoutCancel(ctx), req.ContainerID, "", "ADD failed")
		}
		if errors.Is(err, errWithdrawn) || errors.Is(err, firewall.ErrGone) {
			return refuse(api.NotReady, "attach %s: %w; try again", w, err)
		}
		return refuse(api.Internal, "attach %s: %w", w, err)
	}
	if late {
		d.awaitLabels(w, req)
	}
	wait, cancel := context.WithTimeout(ctx, peersWait)
	defer cancel()
	d.settle(wait, "peer "+w.String())
	d.cluster.awaitStart(ctx, w, began)
	return nil
}

// describe turns a request into what will be stored, having asked the kernel. The caller closes
// the namespace.
func (d *Daemon) describe(req api.CNIRequest) (StoredWorkload, *os.File, error) {
	ns, err := openNamespace(req.NetNS)
	if err != nil {
		return StoredWorkload{}, nil, refuse(api.BadRequest, "%w", err)
	}
	record, err := d.describeIn(ns, req)
	if err != nil {
		return StoredWorkload{}, nil, errors.Join(refuse(api.BadRequest, "%w", err), ns.Close())
	}
	return record, ns, nil
}

func (d *Daemon) describeIn(ns *os.File, req api.CNIRequest) (StoredWorkload, error) {
	cookie, err := firewall.CookieFile(ns)
	if err != nil {
		return StoredWorkload{}, err
	}
	ifcs, err := interfaces(ns, req.Interfaces)
	if err != nil {
		return StoredWorkload{}, err
	}
	namespace, name := d.displayName(req)
	record := StoredWorkload{
		ID: req.ContainerID, Namespace: namespace, Name: name, Labels: maps.Clone(req.Labels),
		NetNS: req.NetNS, Cookie: cookie, Since: d.now(), StartSeen: true,
	}
	for i, ifc := range ifcs {
		record.Interfaces = append(record.Interfaces, storedInterface(ifc, req.Network))
		for _, g := range req.Interfaces[i].Gateways {
			a, err := parseAddr(g)
			if err != nil {
				return StoredWorkload{}, fmt.Errorf("gateway of %s: %w", ifc.Name, err)
			}
			record.Gateways = append(record.Gateways, a)
		}
	}
	for _, r := range req.Resolvers {
		a, err := parseAddr(r)
		if err != nil {
			return StoredWorkload{}, fmt.Errorf("resolver: %w", err)
		}
		record.Resolvers = append(record.Resolvers, a)
	}
	return record, nil
}

// displayName is namespace and name of a workload, from where runtimes put them: Kubernetes and
// containerd in CNI_ARGS and in labels, Podman only a name in CNI_ARGS, others nothing.
func (d *Daemon) displayName(req api.CNIRequest) (namespace, name string) {
	namespace = cmp.Or(req.Args["K8S_POD_NAMESPACE"], req.Labels["io.kubernetes.pod.namespace"], d.cfg.Namespace)
	short := req.ContainerID
	if len(short) > 12 {
		short = short[:12]
	}
	name = cmp.Or(req.Args["K8S_POD_NAME"], req.Labels["io.kubernetes.pod.name"], short)
	return namespace, name
}

// admit finds the workload of a record or makes it. What is new is in the store before it is
// anywhere else. known says that it was here before.
func (d *Daemon) admit(record StoredWorkload) (w *workload, known bool, err error) {
	d.mu.Lock()
	w = d.workloads[record.ID]
	former := d.byCookieLocked(record.Cookie)
	d.mu.Unlock()
	if w != nil && w.cookie == record.Cookie {
		if w.stored().NetNS == record.NetNS {
			return w, true, d.extend(w, record)
		}
		// The same namespace under another name, which is the one that will last.
		netns := record.NetNS
		record, _ = w.merged(record)
		record.NetNS = netns
	}
	// The id came back with another namespace (a restarted container), or the namespace with another
	// id (a DEL that never came): the former one is gone. Its rules stay until ours replace them.
	if former == w {
		former = nil
	}
	for _, old := range []*workload{w, former} {
		if old != nil {
			d.drop(old, "replaced by "+record.ID, old.cookie == record.Cookie)
		}
	}
	if err := d.store.PutWorkload(record); err != nil {
		return nil, false, refuse(api.Internal, "%w", err)
	}
	return d.start(record), false, nil
}

// extend adds the interfaces of record that w does not have yet.
func (d *Daemon) extend(w *workload, record StoredWorkload) error {
	now, changed := w.merged(record)
	if !changed {
		return nil
	}
	if len(now.Interfaces) > maxInterfaces {
		return refuse(api.BadRequest, "workload %s: %d interfaces, bound %d", w, len(now.Interfaces), maxInterfaces)
	}
	if err := d.store.PutWorkload(now); err != nil {
		return refuse(api.Internal, "%w", err)
	}
	w.replace(now)
	d.announce(w)
	return nil
}

// refuse makes the API's error of a code and a sentence; an error of the API among args stays
// what it is.
func refuse(code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	var known *api.Error
	if errors.As(err, &known) {
		return known
	}
	return api.Errorf(code, "%s", err)
}

func storedInterface(ifc firewall.Interface, network string) StoredInterface {
	return StoredInterface{Name: ifc.Name, Network: network, Host: ifc.Host, HostIndex: ifc.HostIndex,
		MAC: ifc.MAC.String(), Addrs: ifc.Addrs}
}

// request is the interface as a request would name it.
func (i StoredInterface) request() []api.CNIInterface {
	addrs := make([]string, 0, len(i.Addrs))
	for _, a := range i.Addrs {
		addrs = append(addrs, a.String())
	}
	return []api.CNIInterface{{Name: i.Name, Host: i.Host, Addrs: addrs}}
}

// addrsOf lists the addresses of all interfaces of which an ADD told: of others only the container says
// whose they are.
func addrsOf(ifcs []StoredInterface) []netip.Addr {
	var out []netip.Addr
	for _, ifc := range ifcs {
		if !ifc.Found {
			out = append(out, ifc.Addrs...)
		}
	}
	return out
}

// inventoryKey is how the inventory names a workload.
func inventoryKey(namespace, name string) string { return namespace + "/" + name }
