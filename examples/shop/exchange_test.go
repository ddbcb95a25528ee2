package shop

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Every protocol of the graph must hold a conversation: three requests over one connection.
func TestExchange(t *testing.T) {
	g := load(t)
	for _, e := range g.Edges {
		if e.AppProtocol == "dns" {
			continue
		}
		t.Run(e.AppProtocol, func(t *testing.T) {
			client, server := net.Pipe()
			done := make(chan error, 1)
			go func() { done <- serve(e.AppProtocol, server) }()
			if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := exchange(e.AppProtocol, client); err != nil {
					t.Fatal(err)
				}
			}
			client.Close()
			if err := <-done; err != nil {
				t.Errorf("server: %v", err)
			}
		})
	}
}

func TestServeEndsOnNonsense(t *testing.T) {
	for _, tt := range []struct{ app, input, err string }{
		{"http", "nonsense\r\n\r\n", "malformed HTTP request"},
		{"grpc", "\xff\xff\xff\xff", "bound is 65536"},
		{"grpc", "\x00\x00\x00\x05ab", "unexpected EOF"},
		{"redis", "+PING\r\n", "want an array"},
		{"redis", "*9\r\n", "want an array"},
		{"redis", strings.Repeat("x", maxMessage+1), "buffer full"},
		{"dns", "\x00\x02ab", "unpacking header"},
		{"telnet", "", "does not speak it"},
	} {
		err := serve(tt.app, pretend{strings.NewReader(tt.input)})
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s %.20q: %v, want %q", tt.app, tt.input, err, tt.err)
		}
	}
}

// Whatever a client sends, a server ends or answers; it neither panics nor takes memory without bound.
func FuzzServe(f *testing.F) {
	apps := []string{"http", "grpc", "redis", "dns"}
	f.Add(byte(0), []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(byte(1), []byte("\x00\x00\x00\x01a"))
	f.Add(byte(2), []byte("*1\r\n$4\r\nPING\r\n"))
	f.Add(byte(3), []byte("\x00\x0c\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, app byte, input []byte) {
		_ = serve(apps[int(app)%len(apps)], pretend{bytes.NewReader(input)}) // any error will do
	})
}

// pretend is a connection of which only reading and writing matter.
type pretend struct{ io.Reader }

func (pretend) Write(b []byte) (int, error)      { return len(b), nil }
func (pretend) Close() error                     { return nil }
func (pretend) LocalAddr() net.Addr              { return nil }
func (pretend) RemoteAddr() net.Addr             { return nil }
func (pretend) SetDeadline(time.Time) error      { return nil }
func (pretend) SetReadDeadline(time.Time) error  { return nil }
func (pretend) SetWriteDeadline(time.Time) error { return nil }

func TestFrameIsWhole(t *testing.T) {
	var b bytes.Buffer
	if err := writeFrame(&b, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	m, err := readFrame(bufio.NewReader(&b))
	if err != nil || string(m) != "hello" {
		t.Errorf("read %q, %v", m, err)
	}
}
