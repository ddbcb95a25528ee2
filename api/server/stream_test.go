package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/api/server"
)

func TestFollow(t *testing.T) {
	b := newBackend()
	c, _ := start(t, b, server.Config{})
	go func() {
		for i := range 3 {
			b.flow <- api.Flow{Port: uint16(i)}
		}
		close(b.flow)
	}()
	var ports []uint16
	err := c.FollowFlows(context.Background(), api.FlowQuery{}, func(f api.Flow) error {
		ports = append(ports, f.Port)
		return nil
	})
	if fmt.Sprint(ports) != "[0 1 2]" || !api.HasCode(err, api.Stopping) {
		t.Errorf("got %v, end %v; want [0 1 2] and %q", ports, err, api.Stopping)
	}
}

func TestFollowEndsWithItsCallback(t *testing.T) {
	c, _ := start(t, newBackend(), server.Config{})
	enough := errors.New("enough")
	n := 0
	err := c.FollowAlerts(context.Background(), "denied", 10, func(m json.RawMessage) error {
		if n++; string(m) != fmt.Sprintf(`{"kind":"denied","count":%d}`, n-1) {
			t.Errorf("alert %d is %s", n, m)
		}
		if n == 5 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 5 {
		t.Errorf("%d calls, err %v", n, err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	c, _ := start(t, newBackend(), server.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	err := c.FollowAlerts(ctx, "", 1, func(json.RawMessage) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err %v, want context.Canceled", err)
	}
}

// TestShutdownEndsStreams: a stream gets what is queued and a last event; nobody waits for it.
func TestShutdownEndsStreams(t *testing.T) {
	b := newBackend()
	c, s := start(t, b, server.Config{})
	ended := make(chan error, 1)
	first := make(chan api.Flow, 1)
	go func() {
		ended <- c.FollowFlows(context.Background(), api.FlowQuery{}, func(f api.Flow) error { first <- f; return nil })
	}()
	b.flow <- api.Flow{}
	within(t, first)
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := within(t, ended); !api.HasCode(err, api.Stopping) {
		t.Errorf("the stream ended with %v, want %q", err, api.Stopping)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := c.Status(context.Background()); err == nil {
		t.Error("a closed server answers")
	}
}

// TestSlowReader: a reader that stops reading holds up nobody, costs a bounded queue, and hears
// why it was dropped when it reads again.
func TestSlowReader(t *testing.T) {
	b := newBackend()
	c, _ := start(t, b, server.Config{Queue: 16})
	conn, err := net.Dial("unix", c.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/flows?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

	sent := 0
	big := api.Flow{Rule: strings.Repeat("x", 4096)}
	for dropped := false; !dropped; {
		select {
		case b.flow <- big:
			sent++
		case err := <-b.sendErrs:
			t.Logf("dropped after %d flows: %v", sent, err)
			dropped = true
		case <-time.After(10 * time.Second):
			t.Fatal("the backend was held up")
		}
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	rest, _ := io.ReadAll(bufio.NewReader(conn))
	tail := rest[max(0, len(rest)-200):]
	if !strings.Contains(string(tail), "event: end\ndata: {\"code\":\"too-slow\"") {
		t.Errorf("the last that the reader heard is %q", tail)
	}
	if _, err := c.Status(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestDeadReader: one that never reads again is cut after the write timeout.
func TestDeadReader(t *testing.T) {
	b := newBackend()
	c, _ := start(t, b, server.Config{Queue: 4, Write: 50 * time.Millisecond, MaxStreams: 1})
	conn, err := net.Dial("unix", c.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/flows?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	for gone := false; !gone; {
		select {
		case b.flow <- api.Flow{Rule: strings.Repeat("x", 4096)}:
		case <-b.sendErrs:
			gone = true
		case <-time.After(10 * time.Second):
			t.Fatal("the backend was held up")
		}
	}
	// Its place is free again: the only stream that there may be opens.
	deadline := time.Now().Add(10 * time.Second)
	for {
		ctx, cancel := context.WithCancel(context.Background())
		err := c.FollowAlerts(ctx, "", 1, func(json.RawMessage) error { cancel(); return nil })
		cancel()
		if errors.Is(err, context.Canceled) {
			return
		}
		if !api.HasCode(err, api.NotReady) || time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // bounded by the deadline above
	}
}

// TestIdleStreamLives: a stream outlives the time that a request may take to arrive, and shows it.
func TestIdleStreamLives(t *testing.T) {
	b := newBackend()
	c, _ := start(t, b, server.Config{Heartbeat: 10 * time.Millisecond})
	conn, err := net.Dial("unix", c.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/flows?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(conn)
	for beats := 0; beats < 3; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == ":\n" {
			beats++
		}
	}
}
