package kube

// Reader gathers the manifests of several files that are in memory, as [ReadFiles] does those on disk.
type Reader struct{ l *loader }

// NewReader has read nothing yet.
func NewReader() *Reader { return &Reader{newLoader()} }

// Add reads one file; name is for messages. It returns whether the file holds anything that package
// policy should read or refuse: policies, and kinds that look like one mistyped.
func (r *Reader) Add(name string, data []byte) bool {
	r.l.policies = false
	r.l.add(name, data)
	return r.l.policies
}

// Inventory is all that was added. Errors: as of [ParseManifests].
func (r *Reader) Inventory() (*Inventory, error) { return r.l.finish() }
