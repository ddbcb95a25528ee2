package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Config of a Server. Zero values are the defaults.
type Config struct {
	Socket string       // absolute path; its directory is made when it is not there
	GID    int          // members of this group may speak, too, and own the socket's file; 0: only root and the daemon's user
	Log    *slog.Logger // nil: slog.Default()

	MaxBody    int64         // bytes of a request's body, default 64 MiB
	MaxCNIBody int64         // bytes of a CNI request's body, default 1 MiB
	Queue      int           // items that a stream's reader may be behind, default 1024
	MaxStreams int           // streams at a time, default 64
	Write      time.Duration // how long one write may take, default 10 s
	Heartbeat  time.Duration // sign of life on an idle stream, default 15 s
}

const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 30 * time.Second
	answerTimeout   = 2 * time.Minute // the longest call is Apply with thousands of workloads
	idleTimeout     = time.Minute
	shutdownTimeout = 5 * time.Second
	maxHeader       = 16 << 10
)

// Server answers the API on one unix socket.
type Server struct {
	backend Backend
	cfg     Config
	gid     int
	log     *slog.Logger

	lock     *os.File
	listener *net.UnixListener
	http     *http.Server

	streams  chan struct{} // one token each
	stopping chan struct{} // closed when streams are to end
	stopOnce sync.Once
}

// Open takes the socket: after it returns no other daemon can, and callers may connect; they are
// answered from Run on. Call it before touching the kernel, so that a second daemon touches
// nothing.
//
// Errors: the path is no socket, or a living daemon holds it (its pid is named).
func Open(cfg Config, b Backend) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := checkPath(cfg.Socket); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("own %s: %w", cfg.Socket, err)
	}
	lk, err := lock(cfg.Socket)
	if err != nil {
		return nil, err
	}
	l, err := listen(cfg.Socket, cfg.GID)
	if err != nil {
		os.Remove(lk.Name())
		lk.Close()
		return nil, err
	}
	s := &Server{
		backend: b, cfg: cfg, gid: cfg.GID, log: cfg.Log, lock: lk, listener: l,
		streams:  make(chan struct{}, cfg.MaxStreams),
		stopping: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler:           s.handler(),
		ConnContext:       withPeer,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 64 << 20
	}
	if c.MaxCNIBody <= 0 {
		c.MaxCNIBody = 1 << 20
	}
	if c.Queue <= 0 {
		c.Queue = 1024
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = 64
	}
	if c.Write <= 0 {
		c.Write = 10 * time.Second
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = 15 * time.Second
	}
	return c
}

// Run answers until ctx ends; then streams get their last event, calls under way get 5 s, and the
// socket is given back. It returns nil after that, or what made it end before.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }() // ends with Close below
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		served = nil
		if errors.Is(err, http.ErrServerClosed) {
			err = nil // Close did it
		} else {
			err = fmt.Errorf("serve %s: %w", s.cfg.Socket, err)
		}
	}
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	if served != nil {
		<-served
	}
	return err
}

// Close ends what Run does, or gives back a socket that Run never served. Closing twice is fine.
func (s *Server) Close() (err error) {
	s.stopOnce.Do(func() {
		close(s.stopping)
		// The name goes first, so that a caller hears "start it", not silence; the lock last, so
		// that the next daemon finds the place empty.
		os.Remove(s.cfg.Socket)
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		if err = s.http.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("close %s: calls still under way after %v were cut", s.cfg.Socket, shutdownTimeout)
			s.http.Close()
		}
		s.listener.Close()
		os.Remove(s.lock.Name())
		s.lock.Close()
	})
	return err
}
