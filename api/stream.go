package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// The stream format is server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html):
// an event is lines "event: NAME" and "data: JSON", ended by an empty line; a line that starts with
// a colon is a sign of life.
const (
	EventItem = "item" // data is one object of the stream
	EventEnd  = "end"  // the last event: data is an Error that says why the stream ends
)

// maxEvent bounds one line of a stream, in bytes. An alert or a flow is a few hundred.
const maxEvent = 1 << 20

// errStreamCut is what a stream without an end event means.
var errStreamCut = errors.New("the stream broke off: the daemon is gone")

// follow opens a stream and calls fn for each item until ctx ends, fn fails, or the daemon ends it.
func follow[T any](ctx context.Context, c *Client, path string, q url.Values, fn func(T) error) error {
	q.Set("follow", "true")
	resp, err := c.open(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var fnErr error
	err = readEvents(resp.Body, func(name string, data []byte) error {
		switch name {
		case EventItem:
			var v T
			if err := json.Unmarshal(data, &v); err != nil {
				return fmt.Errorf("decode an event: %w", err)
			}
			fnErr = fn(v)
			return fnErr
		case EventEnd:
			e := &Error{}
			if err := json.Unmarshal(data, e); err != nil {
				return fmt.Errorf("decode the last event: %w", err)
			}
			e.Status = e.HTTPStatus()
			return e
		}
		return nil // a newer daemon may send more kinds
	})
	switch {
	case fnErr != nil:
		return fnErr
	case ctx.Err() != nil:
		return ctx.Err()
	}
	var end *Error
	if errors.As(err, &end) {
		return end
	}
	return c.wrap(http.MethodGet, path, err)
}

// readEvents calls fn for every whole event; data is fn's to keep. It ends with fn's error, the
// reader's, or errStreamCut at the end of the input. An event that the input breaks off is not
// delivered.
func readEvents(r io.Reader, fn func(name string, data []byte) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), maxEvent)
	var name string
	var data []byte
	var seen bool
	for sc.Scan() {
		line := sc.Bytes()
		if len(line) == 0 {
			if seen {
				if err := fn(name, data); err != nil {
					return err
				}
			}
			name, data, seen = "", nil, false
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			name = string(value)
		case "data":
			if seen {
				data = append(data, '\n')
			}
			if len(data)+len(value) > maxEvent {
				return fmt.Errorf("an event of more than %d bytes", maxEvent)
			}
			data, seen = append(data, value...), true
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return errStreamCut
}
