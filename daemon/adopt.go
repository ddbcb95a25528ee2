package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/cni"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// adoptWait bounds how long a start waits for all workloads to hold what is wanted. One that does
// not make it goes on trying; its old rules are in force.
const adoptWait = time.Minute

// restoreState reads what the former daemon knew: policies, modes, what was learned, the folders'
// last good files. A stored policy that does not parse ends the start: without it a workload would
// be open that is closed now.
func (d *Daemon) restoreState() error {
	own, standard, err := d.store.Modes()
	if err != nil {
		return fmt.Errorf("restore modes: %w", err)
	}
	m := &modes{own: map[identity.Service]policy.Mode{}, standard: d.cfg.DefaultMode}
	if standard != nil {
		m.standard, m.set = *standard, true
	}
	for name, mode := range own {
		s, err := parseService(name)
		if err != nil {
			return fmt.Errorf("restore modes: %w", err)
		}
		m.own[s] = mode
	}
	d.modes.Store(m)
	held, err := d.storedPolicies()
	if err != nil {
		return fmt.Errorf("restore policies: %w; the rules in force stay as they are", err)
	}
	if err := d.restoreFolders(held); err != nil {
		return err
	}
	if err := d.restorePending(); err != nil {
		return err
	}
	evidence, err := d.store.Evidence()
	if err != nil {
		d.log.Error("evidence of shadows lost", "err", err)
	}
	d.shadows.restore(evidence)
	d.shadows.follow(d.rules.Load())
	counted, err := d.store.Hits()
	if err != nil {
		d.log.Error("counts of rules lost", "err", err)
	}
	d.hits.restore(counted)
	d.hits.follow(d.rules.Load(), d.now())
	edges, known, err := d.store.Learned()
	if err != nil {
		d.log.Error("learned edges lost", "err", err)
	}
	d.graph.Restore(edges)
	d.baseline.Restore(known)
	return nil
}

func (d *Daemon) storedPolicies() (map[slot]heldPolicy, error) {
	stored, err := d.store.Policies()
	if err != nil {
		return nil, err
	}
	held := map[slot]heldPolicy{}
	for key, p := range stored {
		s, err := parseSlot(key)
		if err != nil {
			return nil, err
		}
		restored, err := parseStored(s, p.File, p.Text)
		if err != nil {
			return nil, err
		}
		held[s] = heldPolicy{restored, sourceAPI, p.Applied}
	}
	return held, nil
}

// restorePending looks at what waits for confirmation before anything is put in force: what should
// have been confirmed while no daemon ran is undone first.
func (d *Daemon) restorePending() error {
	pending, err := d.store.Pending()
	if err != nil {
		return fmt.Errorf("restore what waits for confirmation: %w", err)
	}
	d.setPending(pending)
	if pending != nil && pending.left(d.moment()) <= 0 {
		d.undo(context.Background(), pending) // tried again later where it cannot be stored
	}
	return nil
}

// restoreFolders reads the watched folders over the last good version of each file.
func (d *Daemon) restoreFolders(held map[slot]heldPolicy) error {
	if err := d.restorePolicyFolder(held); err != nil {
		return fmt.Errorf("policyDir: %w; the rules in force stay as they are", err)
	}
	texts, err := d.store.Files(folderInventory)
	if err != nil {
		return err
	}
	parse := parseInventory(d.cfg.LabelOrder)
	var changed bool
	if d.inventoryFiles, changed, err = readFolder(d, d.inventoryFolder, folderInventory, restore(texts, parse), parse); err != nil {
		return err
	}
	if changed {
		// A full disk must not keep the daemon from starting: the files themselves are there.
		if err := d.store.PutFiles(folderInventory, d.inventoryFiles.texts()); err != nil {
			d.log.Error("last good files not stored", "dir", folderInventory, "err", err)
		}
	}
	d.useInventory(mergeInventory(d.inventoryFiles))
	return nil
}

// restoreClock reads which generation is the newest, and until when expiries were told of.
func (d *Daemon) restoreClock() error {
	n, at, err := d.store.LastGeneration()
	if err != nil {
		return err
	}
	looked, err := d.store.Looked()
	if err != nil {
		return err
	}
	d.generation.Store(n)
	if !at.IsZero() {
		d.newest.Store(at.UnixNano())
	}
	if looked.Before(at) {
		looked = at
	}
	if looked.IsZero() {
		looked = d.now()
	}
	d.looked.Store(looked.UnixNano())
	return nil
}

// restorePolicyFolder puts the policies' folder beside those of the API. What changed in it while no
// daemon ran is a generation of its own.
func (d *Daemon) restorePolicyFolder(held map[slot]heldPolicy) error {
	if err := d.restoreClock(); err != nil {
		return err
	}
	texts, err := d.store.Files(folderPolicies)
	if err != nil {
		return err
	}
	before := restore(texts, policy.Parse)
	was, err := withFiles(held, before, before, d.now())
	if err != nil {
		return err
	}
	rules, err := newRulebook(was, d.judged())
	if err != nil {
		return err
	}
	d.rules.Store(rules)
	next, changed, err := readFolder(d, d.policyFolder, folderPolicies, before, policy.Parse)
	if err != nil {
		return err
	}
	d.policyFiles = next
	p := d.newPlan(causeFiles)
	if p.held, err = withFiles(was, next, before, d.now()); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	if !changed && p.change.Generation == nil {
		return nil
	}
	p.change.Files = next.texts()
	d.number(context.Background(), p)
	// A full disk must not keep the daemon from starting: the files themselves are there.
	if err := d.store.Commit(p.change); err != nil {
		d.log.Error("last good files not stored", "dir", folderPolicies, "err", err)
	} else {
		d.stand(p)
	}
	d.rules.Store(p.rules)
	return nil
}

// readFolder reads a watched folder for the first time, and says whether it is not as it was.
func readFolder[T any](d *Daemon, f folder, name string, before lastGood[T], parse func(string, []byte) (T, error)) (lastGood[T], bool, error) {
	files, errs, err := f.files()
	if err != nil {
		if !d.absent(err, len(before.good)) {
			d.complain(name, []error{fmt.Errorf("%s: %w; what it held stays in force", name, err)})
		}
		return before, false, nil
	}
	next, changed := before.read(files, parse)
	for _, text := range next.errors() {
		errs = append(errs, errors.New(text))
	}
	d.complain(name, errs)
	return next, changed, nil
}

// adopt takes over every workload of the store, and those that the plugin let through while no
// daemon ran. All of them are in the index before the first one's rules are touched, so that
// nothing that is needed is ever taken away.
func (d *Daemon) adopt(ctx context.Context) error {
	records, err := d.store.Workloads()
	if err != nil {
		d.log.Error("stored workloads lost", "err", err)
	}
	learned, err := d.store.Names()
	if err != nil {
		d.log.Error("names learned from DNS answers lost", "err", err)
	}
	var gone []string
	var found []*workload
	for _, r := range records {
		if cookie, err := firewall.Cookie(r.NetNS); err != nil || cookie != r.Cookie {
			d.log.Info("workload ended", "workload", r.Namespace+"/"+r.Name, "reason", "its namespace is gone")
			gone = append(gone, r.ID)
			continue
		}
		w := d.prepare(d.recheck(r))
		w.adopted = true
		w.restoreNames(learned[w.id])
		found = append(found, w)
	}
	if err := d.store.DeleteWorkloads(gone...); err != nil {
		d.log.Error("workloads not forgotten", "err", err)
	}
	for _, w := range found {
		d.announce(w)
	}
	if err := d.refreshNode(); err != nil {
		return err
	}
	d.lockBaselines()
	for _, w := range found {
		d.launch(w)
	}
	wait, cancel := context.WithTimeout(ctx, adoptWait)
	defer cancel()
	if held := d.settle(wait, "start"); held < len(found) {
		d.log.Warn("workloads not adopted yet", "count", len(found)-held)
	}
	d.adoptPending(ctx)
	d.sweepGuards()
	return ctx.Err()
}

// recheck looks at a stored workload's interfaces as the kernel has them now: a host end may have
// been renamed or re-made while no daemon ran.
func (d *Daemon) recheck(r StoredWorkload) StoredWorkload {
	ns, err := firewall.OpenNamespace(r.NetNS)
	if err != nil {
		return r
	}
	defer ns.Close()
	for i, ifc := range r.Interfaces {
		now, err := interfaces(ns, ifc.request())
		if err != nil {
			d.log.Warn("interface not found", "workload", r.Namespace+"/"+r.Name, "interface", ifc.Name, "err", err)
			continue
		}
		r.Interfaces[i].Host, r.Interfaces[i].HostIndex = now[0].Host, now[0].HostIndex
	}
	return r
}

// adoptPending takes what the plugin let through without us (failurePolicy open), and says so: it
// ran without rules. That happens while no daemon runs, and while one is too slow to answer.
func (d *Daemon) adoptPending(ctx context.Context) {
	journal := cni.Journal{Dir: cni.PendingDir(d.cfg.Socket)}
	list, err := journal.List()
	if err != nil {
		d.log.Error("journal of the plugin not read", "err", err)
	}
	for _, p := range list {
		id, ifname := p.Request.ContainerID, p.Request.IfName
		err := d.attachAs(ctx, p.Request, false)
		switch {
		case api.HasCode(err, api.BadRequest): // asking again will not help
			d.log.Warn("workload of the journal forgotten", "workload", id, "err", err)
		case err != nil:
			d.log.Error("workload of the journal not adopted", "workload", id, "err", err)
			continue
		default:
			a := alert.Tampering{Time: d.now(), Workload: d.index.View().Workload(id)}.Alert(d.cfg.Node)
			a.Severity, a.Breaks = alert.High, ""
			a.Reason = fmt.Sprintf("%s ran without rules from %s: the daemon could not be asked (%s); its rules are in force now",
				a.Client.Workload, p.Time.UTC().Format(time.RFC3339), p.Cause)
			a.Advice = "set failurePolicy to closed in the conflist, or see why the daemon was away"
			d.alerts.Send(a)
		}
		if err := journal.Remove(id, ifname); err != nil {
			d.log.Error("journal of the plugin not cleared", "workload", id, "err", err)
		}
	}
}
