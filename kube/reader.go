package kube

// Reader gathers the manifests of several files that are in memory, as [ReadFiles] does those on disk.
type Reader struct{ l *loader }

// NewReader has read nothing yet.
func NewReader() *Reader { return &Reader{newLoader()} }

// Holds says what a file has in it that other packages read, or should refuse: kinds that look like
// one of theirs mistyped count too.
type Holds struct {
	Policies bool // for package policy
	Tests    bool // for package policy/suite
}

// Add reads one file; name is for messages.
func (r *Reader) Add(name string, data []byte) Holds {
	r.l.holds = Holds{}
	r.l.add(name, data)
	return r.l.holds
}

// Inventory is all that was added. Errors: as of [ParseManifests].
func (r *Reader) Inventory() (*Inventory, error) { return r.l.finish() }
