package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	// answerWait bounds how long a runtime may take for its answer. It takes 2 to 80 ms; a loaded
	// machine or a Podman service that systemd starts for us needs more. Giving up early would put
	// a container into the wrong service, and ADD has ten seconds.
	answerWait = 2 * time.Second
	// maxID is how long an id may be, in bytes; runtimes use 64 hex digits, nerdctl some more.
	maxID = 256
)

// latePauses lie between the tries of [Sources.Await].
var latePauses = []time.Duration{250 * time.Millisecond, time.Second, 4 * time.Second, 15 * time.Second, time.Minute}

// Config names the runtimes' sockets. Empty is a runtime that is never asked.
type Config struct {
	Containerd string // gRPC; usually /run/containerd/containerd.sock
	Podman     string // REST of `podman system service`; usually /run/podman/podman.sock
}

// Found is what a runtime knows of a container.
type Found struct {
	Labels    map[string]string // without the runtime's own bookkeeping; nil when it has none
	Namespace string            // of the pod; "" where the runtime has no such thing
	Name      string            // of the pod or container; "" when it has none
	Source    string            // "containerd" or "podman"; "" when no runtime knows the container
}

// Sources are the runtimes of a node.
type Sources struct {
	sources []source
}

// source is one runtime: a name and a question. known is false when it does not know the id.
type source struct {
	name, socket string
	ask          func(ctx context.Context, id string) (found Found, known bool, err error)
}

func (s source) present() bool {
	_, err := os.Stat(s.socket)
	return err == nil
}

// New makes Sources; nothing is dialled before the first question.
func New(cfg Config) *Sources {
	s := &Sources{}
	if cfg.Containerd != "" {
		s.sources = append(s.sources, source{"containerd", cfg.Containerd, containerd{cfg.Containerd}.ask})
	}
	if cfg.Podman != "" {
		s.sources = append(s.sources, source{"podman", cfg.Podman, newPodman(cfg.Podman).ask})
	}
	return s
}

// Labels asks all runtimes at once and returns what the first one knows that knows the container.
// It is safe to call during a CNI ADD, and takes no longer than 2 s. A Found without Source says
// that none knows it.
//
// Errors: none knows it, and one of them could not be asked, so that it may be worth to ask again.
func (s *Sources) Labels(ctx context.Context, containerID string) (Found, error) {
	if len(s.sources) == 0 {
		return Found{}, nil
	}
	if containerID == "" || len(containerID) > maxID {
		return Found{}, fmt.Errorf("container id of %d bytes: want 1 to %d", len(containerID), maxID)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel() // the slower ones are not waited for
	type answer struct {
		found Found
		known bool
		err   error
	}
	answers := make(chan answer, len(s.sources)) // all can answer without a reader
	for _, src := range s.sources {
		go func() {
			f, known, err := src.ask(ctx, containerID)
			if err != nil {
				err = fmt.Errorf("ask %s for container %s: %w", src.name, containerID, err)
			}
			f.Source = src.name
			answers <- answer{f, known, err}
		}()
	}
	var errs []error
	for range s.sources {
		a := <-answers // each ends with ctx
		if a.known {
			return a.found, nil
		}
		errs = append(errs, a.err)
	}
	return Found{}, errors.Join(errs...)
}

// Await asks again for a container that no runtime knew, with growing pauses over 80 s: the service
// was restarted, the machine overloaded, the event not written yet. It returns false when ctx ended,
// nobody ever knew, or no runtime has a socket here.
func (s *Sources) Await(ctx context.Context, containerID string) (Found, bool) {
	if !slices.ContainsFunc(s.sources, source.present) {
		return Found{}, false
	}
	for _, pause := range latePauses {
		select {
		case <-ctx.Done():
			return Found{}, false
		case <-time.After(pause):
		}
		// What went wrong was told when the first try failed; here only the next try helps.
		if f, err := s.Labels(ctx, containerID); err == nil && f.Source != "" {
			return f, true
		}
	}
	return Found{}, false
}

// notThere says that nobody listens on a socket: that runtime is not in use on this node, and did
// not send the container in question.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}
