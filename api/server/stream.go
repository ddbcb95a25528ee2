package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

var (
	errTooSlow  = errors.New("reader too slow")
	errStopping = errors.New("daemon stops")
)

// stream answers with server-sent events. What run sends goes to a bounded queue and from there,
// by this goroutine, to the reader. A full queue ends the stream: the reader is told when it reads
// again within the write timeout, else the connection is cut.
func stream[T any](s *Server, w http.ResponseWriter, r *http.Request, run func(context.Context, func(T) error) error) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		s.fail(w, r, api.Errorf(api.NotReady, "%d streams are open, the most there may be; end one", cap(s.streams)))
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	queue := make(chan T, s.cfg.Queue)
	send := func(v T) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		select {
		case queue <- v:
			return nil
		default:
			cancel(errTooSlow)
			return errTooSlow
		}
	}

	var running sync.WaitGroup
	running.Add(1)
	done := make(chan error, 1)
	go func() { // ends with ctx, which Backend promises
		defer running.Done()
		done <- run(ctx, send)
	}()
	defer running.Wait()
	defer cancel(nil) // before Wait

	ew := eventWriter{w: w, rc: http.NewResponseController(w), timeout: s.cfg.Write}
	if err := ew.start(); err != nil {
		return
	}
	ew.end(follow(s, ctx, &ew, queue, done))
}

// follow moves items from the queue to the reader until the stream ends, and returns why.
func follow[T any](s *Server, ctx context.Context, ew *eventWriter, queue <-chan T, done <-chan error) error {
	life := time.NewTicker(s.cfg.Heartbeat)
	defer life.Stop()
	for {
		if ctx.Err() != nil { // too slow goes before what is still queued
			return context.Cause(ctx)
		}
		select {
		case v := <-queue:
			if err := ew.item(v); err != nil {
				return err
			}
		case <-life.C:
			if err := ew.alive(); err != nil {
				return err
			}
		case err := <-done:
			if ctx.Err() != nil {
				continue // it ended because the reader is slow or gone; the cause says which
			}
			if err == nil {
				err = errStopping
			}
			return errors.Join(drain(ew, queue), err)
		case <-s.stopping:
			return errors.Join(drain(ew, queue), errStopping)
		case <-ctx.Done():
		}
	}
}

// drain writes what is queued now, so that the last items before an end are not lost.
func drain[T any](ew *eventWriter, queue <-chan T) error {
	for n := len(queue); n > 0; n-- {
		if err := ew.item(<-queue); err != nil {
			return err
		}
	}
	return nil
}

// eventWriter writes events, each with a deadline of its own: the server's write timeout is for
// whole answers.
type eventWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	buf     bytes.Buffer
	broken  bool
}

func (ew *eventWriter) start() error {
	// What notices that the reader hangs up is a read: its deadline was for the request.
	if err := ew.rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ew.w.Header().Set("Content-Type", "text/event-stream")
	ew.w.Header().Set("Cache-Control", "no-store")
	return ew.alive() // the reader knows that it is on before anything happens
}

func (ew *eventWriter) alive() error { return ew.write([]byte(":\n\n")) }

func (ew *eventWriter) item(v any) error { return ew.event(api.EventItem, v) }

// end writes the last event, when there is still somebody to read it.
func (ew *eventWriter) end(why error) {
	var e *api.Error
	switch {
	case ew.broken:
		return
	case errors.Is(why, errTooSlow):
		e = api.Errorf(api.TooSlow, "the reader fell too far behind; what followed is lost")
	case errors.Is(why, errStopping):
		e = api.Errorf(api.Stopping, "the daemon stops")
	case errors.Is(why, context.Canceled):
		return // the reader hung up
	default:
		e = asError(why)
	}
	ew.event(api.EventEnd, e)
}

func (ew *eventWriter) event(name string, v any) error {
	data, err := json.Marshal(v) // one line: Marshal escapes newlines
	if err != nil {
		return err
	}
	ew.buf.Reset()
	ew.buf.WriteString("event: " + name + "\ndata: ")
	ew.buf.Write(data)
	ew.buf.WriteString("\n\n")
	return ew.write(ew.buf.Bytes())
}

func (ew *eventWriter) write(b []byte) error {
	err := ew.rc.SetWriteDeadline(time.Now().Add(ew.timeout))
	if err == nil {
		_, err = ew.w.Write(b)
	}
	if err == nil {
		err = ew.rc.Flush()
	}
	ew.broken = err != nil
	return err
}
