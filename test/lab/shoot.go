package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

const (
	openers  = 4                      // threads that open sockets in other namespaces
	flight   = 1024                   // probes that wait for an answer at a time, at first
	patience = 100 * time.Millisecond // for an answer, at first
	patient  = 500 * time.Millisecond // in the last round, unless only a glance was asked for
	longest  = 2 * time.Second        // patience on a machine that is starved
	headroom = 8                      // silence means something when we waited so many times longer than the canary had to
	// quiet is how many more rounds, none of which finds anything, make silence a denial: with one, an
	// allowed probe was once called denied at load 14 on two cores.
	quiet      = 2
	mostRounds = 8
	// canaryEvery is the pause between two canaries.
	canaryEvery = 5 * time.Millisecond
)

// outcome of one shot.
type outcome struct {
	answer  string
	allowed bool
	took    time.Duration
	err     error // not a verdict: the probe cannot be made
}

// shootAll fires every shot, in rounds: what got no answer is tried again, since a packet lost on a
// busy machine must not be called a denial. The canary, a ping that no policy touches, is sent all the
// while: how long it takes tells how long others may take, now, on this machine; nil where there is none.
// With glance the last, patient round is left out. Index i of the result belongs to shots[i]; nil shots
// are left out.
func shootAll(ctx context.Context, shots []*shot, canary *shot, glance bool) []outcome {
	out := make([]outcome, len(shots))
	var todo []int
	for i, s := range shots {
		if s != nil {
			todo = append(todo, i)
		}
	}
	// Shots from one namespace in a row: its thread need not change.
	slices.SortStableFunc(todo, func(a, b int) int { return strings.Compare(shots[a].netns, shots[b].netns) })
	at, wait, calm := flight, patience, 0
	if glance {
		wait = patience / 2
	}
	for round := 0; round < mostRounds && calm < quiet && len(todo) > 0 && ctx.Err() == nil; round++ {
		worst := canary.during(ctx, func() { volley(ctx, shots, out, todo, at, wait) })
		var silent []int
		for _, i := range todo {
			if !out[i].allowed && out[i].err == nil {
				silent = append(silent, i)
			}
		}
		late := round > 0 && len(silent) < len(todo)
		switch {
		case worst*headroom > wait || late:
			wait, calm = min(max(wait*2, worst*headroom), longest), 0
			if late {
				at = max(at/2, 16)
			}
		case round > 0:
			calm++
		}
		if calm == quiet && !glance && wait < patient {
			wait, calm = patient, quiet-1
		}
		todo = silent
	}
	return out
}

// during sends the canary again and again while do runs, and gives its longest way there and back.
func (s *shot) during(ctx context.Context, do func()) (worst time.Duration) {
	if s == nil {
		do()
		return 0
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			out := make([]outcome, 1)
			volley(ctx, []*shot{s}, out, []int{0}, 1, longest)
			worst = max(worst, out[0].took)
			select {
			case <-stop:
				return
			case <-time.After(canaryEvery):
			}
		}
	}()
	do()
	close(stop)
	<-done
	return worst
}

// volley fires the shots of todo once, so many waiting at a time.
func volley(ctx context.Context, shots []*shot, out []outcome, todo []int, at int, wait time.Duration) {
	work, room := make(chan int), make(chan struct{}, at)
	var opening, waiting sync.WaitGroup
	for range min(openers, len(todo)) {
		opening.Add(1)
		go func() {
			defer opening.Done()
			runtime.LockOSThread() // never unlocked: the thread ends inside some namespace
			inside := ""
			for i := range work {
				s := shots[i]
				start := time.Now()
				conn, err := s.open(&inside)
				if err != nil {
					out[i] = outcome{took: time.Since(start), err: cannot(err)}
					<-room
					continue
				}
				waiting.Add(1)
				go func() { // ends at the shot's deadline
					defer waiting.Done()
					defer func() { <-room }()
					out[i] = s.await(ctx, conn, fmt.Sprintf("probe-%d-%d", os.Getpid(), i), start, wait)
				}()
			}
		}()
	}
	for _, i := range todo {
		room <- struct{}{}
		work <- i
	}
	close(work)
	opening.Wait()
	waiting.Wait()
}

// open makes the shot's socket in its namespace and begins to connect. The calling thread must be
// locked; inside is the namespace that it is in, and is left in the shot's.
func (s *shot) open(inside *string) (net.Conn, error) {
	if *inside != s.netns {
		*inside = ""
		if err := enter(nsPath(s.netns)); err != nil {
			return nil, &unable{err}
		}
		*inside = s.netns
	}
	kind, proto := unix.SOCK_STREAM, 0
	switch s.proto {
	case identity.ICMP:
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_ICMP
	case identity.ICMPv6:
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6
	case identity.UDP:
		kind = unix.SOCK_DGRAM
	case identity.SCTP:
		conn, err := s.connect(unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		if errors.Is(err, errNoSCTP) {
			return s.connect(unix.SOCK_RAW, unix.IPPROTO_SCTP)
		}
		return conn, err
	}
	return s.connect(kind, proto)
}

// await makes one attempt over a socket that open gave, and closes it.
func (s *shot) await(ctx context.Context, conn net.Conn, token string, start time.Time, wait time.Duration) outcome {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	deadline := start.Add(wait)
	var answer string
	var err error
	switch {
	case s.proto.IsICMP():
		answer, err = s.ping(conn, token, deadline)
	case s.proto == identity.UDP:
		answer, err = exchange(conn, []byte(token), deadline, func(got []byte) (string, bool) { return answered(string(got), token) })
	case isRaw(conn):
		answer, err = s.association(conn, deadline)
	default:
		answer, err = s.stream(conn, token, deadline)
	}
	return outcome{answer: answer, allowed: err == nil, took: time.Since(start), err: cannot(err)}
}

// unable wraps errors of our side that say nothing of a firewall.
type unable struct{ error }

func (u *unable) Unwrap() error { return u.error }

// cannot tells apart what is our side's inability from what a firewall does: nil for the latter.
func cannot(err error) error {
	var own *unable
	if errors.As(err, &own) || errors.Is(err, errNoSCTP) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return err
	}
	return nil
}
