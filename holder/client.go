package holder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// patience is how long a call may take: the other end does nothing that takes time.
const patience = 5 * time.Second

// Client talks to a holder. It is safe for concurrent use.
type Client struct {
	path string
	mu   sync.Mutex
	conn *net.UnixConn // nil: to be dialled again
}

// New is a client of the holder at a path. It connects when it is first asked, and again when a holder
// was started anew.
func New(path string) *Client { return &Client{path: path} }

// Dial connects to the holder at a path. Errors: none runs there.
func Dial(path string) (*Client, error) {
	c := New(path)
	if err := c.dial(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Client) dial() error {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: c.path})
	if err != nil {
		return fmt.Errorf("holder: %w", err)
	}
	c.conn = conn
	return nil
}

// Close ends the connection; what is held stays held.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// Keep hands a copy of a socket over, in the place of one of the same name.
func (c *Client) Keep(name string, socket *os.File) error {
	_, err := c.call("keep "+name, socket)
	return err
}

// Drop lets go of a socket. One that is not held does not matter.
func (c *Client) Drop(name string) error {
	_, err := c.call("drop "+name, nil)
	return err
}

// List gives copies of all sockets, by name. The caller closes them.
func (c *Client) List() (map[string]*os.File, error) { return c.call("list", nil) }

// call asks, once more over a new connection where the old one is dead: a holder that was started anew.
func (c *Client) call(request string, file *os.File) (map[string]*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for again := false; ; again = true {
		if c.conn == nil {
			if err := c.dial(); err != nil {
				return nil, err
			}
		}
		items, err := c.ask(request, file)
		var refused refusal
		if err == nil || errors.As(err, &refused) {
			return items, err
		}
		_ = c.conn.Close()
		c.conn = nil
		if again {
			return nil, fmt.Errorf("holder: %s: %w", request, err)
		}
	}
}

// refusal is the holder's own error.
type refusal string

func (r refusal) Error() string { return "holder: " + string(r) }

func (c *Client) ask(request string, file *os.File) (map[string]*os.File, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := send(c.conn, request, file); err != nil {
		return nil, err
	}
	items := map[string]*os.File{}
	for {
		text, got, err := receive(c.conn)
		verb, rest, _ := strings.Cut(text, " ")
		switch {
		case err != nil:
		case verb == "ok":
			return items, nil
		case verb == "item" && got != nil && items[rest] == nil:
			items[rest] = got
			continue
		case verb == "error":
			err = refusal(rest)
		default:
			err = fmt.Errorf("answer %q", text)
		}
		for _, f := range items {
			_ = f.Close()
		}
		return nil, err
	}
}
