package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Dial opens a TCP connection from a pod.
func (t *Town) Dial(from string, to netip.AddrPort, wait time.Duration) (net.Conn, error) {
	var conn net.Conn
	err := t.Inside(from, func() (err error) {
		// One address, so that package net makes the socket on this very thread.
		conn, err = net.DialTimeout("tcp", to.String(), wait)
		return err
	})
	return conn, err
}

// Call connects once and asks for an answer: nil when one came in time.
func (t *Town) Call(from string, to netip.AddrPort, wait time.Duration) error {
	end := time.Now().Add(wait)
	conn, err := t.Dial(from, to, wait)
	if err != nil {
		return err
	}
	defer conn.Close()
	return ask(bufio.NewReader(conn), conn, end)
}

func ask(r *bufio.Reader, conn net.Conn, end time.Time) error {
	if err := conn.SetDeadline(end); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasSuffix(line, " hello\n") {
		return fmt.Errorf("answer %q", line)
	}
	return nil
}

// Stream is a connection that asks again and again.
type Stream struct {
	from string
	end  context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	answered time.Time // last
	err      error     // that ended it
}

// streamEvery is the pause between two questions of a stream.
const streamEvery = 20 * time.Millisecond

// Stream connects and goes on asking until Stop, or until no answer comes in time.
func (t *Town) Stream(from string, to netip.AddrPort, wait time.Duration) (*Stream, error) {
	conn, err := t.Dial(from, to, wait)
	if err != nil {
		return nil, fmt.Errorf("%s to %s: %w", from, to, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Stream{from: fmt.Sprintf("%s to %s", from, to), end: cancel, done: make(chan struct{}), answered: time.Now()}
	go func() { // ends with Stop, or with the connection
		defer close(s.done)
		defer conn.Close()
		r := bufio.NewReader(conn)
		for ctx.Err() == nil {
			err := ask(r, conn, time.Now().Add(wait))
			s.mu.Lock()
			if s.err = err; err == nil {
				s.answered = time.Now()
			}
			s.mu.Unlock()
			if err != nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(streamEvery):
			}
		}
	}()
	return s, nil
}

// Stop ends a stream and gives the error that ended it before.
func (s *Stream) Stop() error {
	s.end()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("%s: last answer at %s: %w", s.from, s.answered.Format(time.TimeOnly), s.err)
	}
	return nil
}

// Ended waits for the end of a stream that is to be cut, and tells when its last answer came.
func (s *Stream) Ended(ctx context.Context) (time.Time, error) {
	select {
	case <-s.done:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.answered, nil
	case <-ctx.Done():
		return time.Time{}, errors.Join(fmt.Errorf("%s: goes on", s.from), ctx.Err())
	}
}
