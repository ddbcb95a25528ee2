package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/utils"

	"github.com/bulkhead-firewall/bulkhead/api"
)

const (
	maxPending     = 1024    // attachments in a journal
	maxPendingFile = 1 << 20 // bytes of one, as of a request on the socket
	maxIDInName    = 200     // bytes; with "@", an interface's name and ".json" below NAME_MAX (255)
	pendingSuffix  = ".json"
)

// Journal holds the attachments that were let through while the daemon was away (failurePolicy
// open): one file each, for the daemon to adopt, alert on, and remove. The directory is on the
// socket's file system, which a reboot empties as it ends the namespaces.
type Journal struct{ Dir string }

// Pending is one journalled attachment.
type Pending struct {
	Time    time.Time      `json:"time"`
	Cause   string         `json:"cause"` // why the daemon could not be asked
	Request api.CNIRequest `json:"request"`
}

// PendingDir is where the journal lies unless the conflist says otherwise.
func PendingDir(socket string) string { return filepath.Join(filepath.Dir(socket), "pending") }

// path is the file of an attachment. A container id has no '@' (the specification's grammar), so
// two attachments never share a name; what would not be one plain name is refused.
func (j Journal) path(containerID, ifName string) (string, error) {
	if err := utils.ValidateContainerID(containerID); err != nil {
		return "", err
	}
	if err := utils.ValidateInterfaceName(ifName); err != nil {
		return "", err
	}
	if len(containerID) > maxIDInName {
		return "", fmt.Errorf("container id of %d bytes: at most %d", len(containerID), maxIDInName)
	}
	return filepath.Join(j.Dir, containerID+"@"+ifName+pendingSuffix), nil
}

// Add writes one attachment, whole or not at all, in place of an older one of the same id and
// interface. Errors: the journal is full, or the disk's.
func (j Journal) Add(p Pending) error {
	path, err := j.path(p.Request.ContainerID, p.Request.IfName)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if len(data) > maxPendingFile {
		return fmt.Errorf("journal %s: an attachment of %d bytes, at most %d", j.Dir, len(data), maxPendingFile)
	}
	if err := os.MkdirAll(j.Dir, 0o700); err != nil {
		return err
	}
	if err := j.Room(); err != nil {
		return err
	}
	f, err := os.CreateTemp(j.Dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Room says whether one more attachment may be added. Parallel calls may pass the bound together;
// it is there against thousands, not against one.
func (j Journal) Room() error {
	files, err := os.ReadDir(j.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(files) >= maxPending {
		return fmt.Errorf("journal %s: full, %d attachments; start the daemon, which adopts them", j.Dir, len(files))
	}
	return nil
}

// Remove forgets one attachment; one that is not there is no error.
func (j Journal) Remove(containerID, ifName string) error {
	path, err := j.path(containerID, ifName)
	if err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List reads the journal, by container id and interface. What cannot be read is left out and named
// in the error, beside which the list holds.
func (j Journal) List() ([]Pending, error) {
	files, err := os.ReadDir(j.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Pending
	var errs []error
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), pendingSuffix) || len(list) == maxPending {
			continue
		}
		p, err := j.read(filepath.Join(j.Dir, f.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // a DEL came between
		case err != nil:
			errs = append(errs, err)
		default:
			list = append(list, p)
		}
	}
	return list, errors.Join(errs...)
}

func (j Journal) read(path string) (p Pending, err error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return p, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxPendingFile {
		return p, fmt.Errorf("%s: not a file of at most %d bytes", path, maxPendingFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	want, err := j.path(p.Request.ContainerID, p.Request.IfName)
	if err == nil && want != path {
		err = fmt.Errorf("holds the attachment of %s", filepath.Base(want))
	}
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// Keep removes the attachments of a network that are not in valid, which is GC's list.
func (j Journal) Keep(network string, valid []api.CNIAttachment) error {
	live := map[api.CNIAttachment]bool{}
	for _, a := range valid {
		live[a] = true
	}
	list, err := j.List()
	errs := []error{err}
	for _, p := range list {
		r := p.Request
		if r.Network == network && !live[api.CNIAttachment{ContainerID: r.ContainerID, IfName: r.IfName}] {
			errs = append(errs, j.Remove(r.ContainerID, r.IfName))
		}
	}
	return errors.Join(errs...)
}
