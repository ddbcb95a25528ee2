package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/kube"
)

// inventory is the manifests of all good files as one picture. Where two files hold the same
// object, the file that sorts later counts.
type inventory struct {
	pods       map[string]identity.Workload // by namespace/name
	services   []identity.KubeService
	namespaces map[string]identity.Labels
	nodes      map[string]identity.NodeInfo
}

func parseInventory(order []string) func(string, []byte) (*kube.Inventory, error) {
	return func(name string, data []byte) (*kube.Inventory, error) {
		inv, err := kube.ParseManifests(name, data)
		if err == nil && len(order) > 0 {
			inv.Relabel(order)
		}
		return inv, err
	}
}

func mergeInventory(files lastGood[*kube.Inventory]) inventory {
	out := inventory{pods: map[string]identity.Workload{}, namespaces: map[string]identity.Labels{}, nodes: map[string]identity.NodeInfo{}}
	services := map[string]identity.KubeService{}
	for _, path := range files.paths() {
		inv := files.good[path].value
		for _, w := range inv.Workloads {
			out.pods[inventoryKey(w.Namespace, w.Name)] = w
		}
		for _, s := range inv.Services {
			services[s.Namespace+"/"+s.Name] = s
		}
		maps.Copy(out.nodes, inv.Nodes)
		for name, labels := range inv.Namespaces {
			// A file that only mentions the namespace knows no more than its name.
			if len(labels) > 1 || out.namespaces[name] == nil {
				out.namespaces[name] = labels
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(services)) {
		out.services = append(out.services, services[key])
	}
	return out
}

// reloadInventory reads the inventory's folder and puts what changed in force.
func (d *Daemon) reloadInventory() {
	d.change.Lock()
	defer d.change.Unlock()
	files, errs, err := d.inventoryFolder.files()
	if err != nil && !d.absent(err, len(d.inventoryFiles.good)) {
		d.complain(folderInventory, []error{fmt.Errorf("inventoryDir: %w; what it held stays", err)})
		return
	}
	next, changed := d.inventoryFiles.read(files, parseInventory(d.cfg.LabelOrder))
	if changed {
		if err := d.store.PutFiles(folderInventory, next.texts()); err != nil {
			d.complain(folderInventory, []error{err})
			return
		}
	}
	d.inventoryFiles = next
	for _, e := range next.errors() {
		errs = append(errs, errors.New(e))
	}
	d.complain(folderInventory, errs)
	if changed {
		d.useInventory(mergeInventory(next))
		d.kickAll("inventory")
	}
}

// useInventory tells the index what the inventory says. The index knows which pod is a workload of
// this node, and completes the one by the other. The caller holds d.change.
func (d *Daemon) useInventory(inv inventory) {
	d.index.SetNamespaceLabels(inv.namespaces)
	d.index.SetServices(inv.services)
	d.index.SetNodes(inv.nodes)
	d.mu.Lock()
	before := d.inventory
	d.inventory = inv
	d.mu.Unlock()
	for key, pod := range before.pods {
		if _, still := inv.pods[key]; !still {
			d.index.Withdraw(pod.ID, identity.SourceInventory)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(inv.pods)) {
		d.index.Upsert(inv.pods[key])
	}
	for _, w := range d.local() {
		d.announce(w)
	}
}

// absent says whether a folder that cannot be read is simply not there and never was: nothing to
// report. One that held files and is gone took nothing with it.
func (d *Daemon) absent(err error, held int) bool {
	return held == 0 && errors.Is(err, fs.ErrNotExist)
}
