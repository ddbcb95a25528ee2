package firewall

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
)

// ErrGone says that the path of a workload's namespace leads elsewhere or nowhere: the container has
// ended.
var ErrGone = errors.New("the network namespace is gone")

// Config says what to open.
type Config struct {
	NetNS      string      // path of the workload's network namespace
	Node       string      // path of the node's network namespace; empty: the caller's own
	Interfaces []Interface // whose guards a former daemon may have left
	Socket     *os.File    // from [Namespace.Hold] of a former daemon, that owns the tables; nil: none
}

// Namespace is one workload's rules in the kernel: it holds the namespace and owns the tables.
// Its methods may be called from several goroutines; one at a time does its work.
type Namespace struct {
	path string
	file *os.File
	node *os.File

	mu       sync.Mutex
	in       *socket // in the workload's namespace
	at       *socket // in the node's
	features features
	have     *Ruleset // what is in force, as far as we know
	unsure   bool     // something failed: read before the next change
	applied  *Ruleset // what was last asked for, nil before the first Apply
	closed   bool
	names    nameState
	beside   map[string]string // names of tables that somebody holds, and those of ours beside them
	seizures []Seizure         // not told yet

	// owed says that rights were taken away and connections may still be there that stood on them:
	// something failed, or the daemon before us may have ended in the middle.
	owed bool
}

// Open opens a namespace and takes over the tables that a former daemon left there and at the host's
// ends of the interfaces. It changes no rule: the first Apply does, where there is a difference.
func Open(cfg Config) (*Namespace, error) {
	ns := &Namespace{path: cfg.NetNS, owed: true}
	if err := ns.open(cfg); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

func (ns *Namespace) open(cfg Config) (err error) {
	if ns.file, err = OpenNamespace(cfg.NetNS); err != nil {
		return err
	}
	node, name := cfg.Node, cfg.Node
	if node == "" {
		node, name = ownNamespacePath, "the node's namespace"
	}
	if ns.node, err = openNode(node); err != nil {
		return err
	}
	if same, err := sameFile(ns.file, ns.node); err != nil {
		return err
	} else if same {
		return fmt.Errorf("network namespace %s: it is the node's own; a workload on the host's network gets no rules", cfg.NetNS)
	}
	if ns.in, err = insideSocket(cfg.Socket, ns.file, cfg.NetNS); err != nil {
		return err
	}
	if ns.at, err = openSocket(ns.node, name); err != nil {
		return err
	}
	if ns.features, err = probe(ns.in); err != nil {
		return err
	}
	// Other workloads' guards are in the same namespace of the node, and may change meanwhile.
	for try := 1; ; try++ {
		like := Compile(Spec{Interfaces: cfg.Interfaces})
		strays, err := ns.strays(like)
		if err == nil {
			like.Tables = append(like.Tables, strays...)
			err = ns.read(like)
		}
		if !again(err) || try == applyTries {
			return err
		}
	}
}

// openNode opens the node's namespace. The caller's own is that of its thread, which is asked on a
// goroutine that no one has moved elsewhere.
func openNode(path string) (f *os.File, err error) {
	if path != ownNamespacePath {
		return OpenNamespace(path)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, err = OpenNamespace(path)
	}()
	<-done
	return f, err
}

// read finds out what is in force, of the tables that like has.
func (ns *Namespace) read(like *Ruleset) error {
	have := &Ruleset{}
	for _, t := range like.Tables {
		got, err := ns.take(t)
		if err != nil {
			return err
		}
		if got != nil && have.table(got) == nil {
			have.Tables = append(have.Tables, got)
		}
	}
	ns.have, ns.unsure = have, false
	return nil
}

func (ns *Namespace) socket(p Place) *socket {
	if p == AtNode {
		return ns.at
	}
	return ns.in
}

// gone is nil while the path still leads to the namespace that was opened. We hold the namespace, so
// that the kernel would go on obeying us after everybody else has left it.
func (ns *Namespace) gone() error {
	now, err := os.Stat(ns.path)
	if err == nil {
		var then os.FileInfo
		if then, err = ns.file.Stat(); err == nil && os.SameFile(then, now) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("network namespace %s: %w: %w", ns.path, ErrGone, err)
	}
	return fmt.Errorf("network namespace %s: %w; close it", ns.path, ErrGone)
}

// ready is called with the lock held before anything is done.
func (ns *Namespace) ready() error {
	if ns.closed {
		return fmt.Errorf("network namespace %s: %w", ns.path, os.ErrClosed)
	}
	return ns.gone()
}

// Warnings says what this kernel or this workload's interfaces cannot do.
func (ns *Namespace) Warnings() []string {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	out := slices.Clone(ns.features.warnings)
	for _, name := range slices.Sorted(maps.Keys(ns.beside)) {
		out = append(out, fmt.Sprintf("table %s is held by somebody in the namespace; the rules are in force in table %s", name, ns.beside[name]))
	}
	if ns.applied == nil {
		return out
	}
	for _, ifc := range ns.applied.spec.Interfaces {
		if ifc.Host == "" {
			out = append(out, fmt.Sprintf("interface %s has no end on the host: frames sent through AF_XDP are not seen, and its guard stands inside the namespace", ifc.Name))
		}
	}
	return out
}

// Close lets go of the namespace. The rules stay in force, without an owner, until the next Open.
func (ns *Namespace) Close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil
	}
	ns.closed = true
	err := errors.Join(ns.in.close(), ns.at.close())
	for _, f := range []*os.File{ns.file, ns.node} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Remove deletes the workload's tables, its guards included, and closes. It works as well when the
// namespace's path is gone: the guards on the node are removed all the same.
func (ns *Namespace) Remove() error {
	ns.mu.Lock()
	if ns.closed {
		ns.mu.Unlock()
		return fmt.Errorf("network namespace %s: %w", ns.path, os.ErrClosed)
	}
	var err error
	if ns.unsure && ns.applied != nil {
		err = ns.read(ns.applied)
	}
	if err == nil {
		var changes []Change
		for _, t := range ns.have.Tables {
			changes = append(changes, Change{Op: DeleteTable, Table: t})
		}
		// The guard first: what the namespace lets out in between must not end there.
		err = ns.commit(changes)
	}
	ns.mu.Unlock()
	return errors.Join(err, ns.Close())
}
