package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
)

// Codes of an [Error], and the HTTP status of each.
const (
	BadRequest = "bad-request" // 400: what was asked for makes no sense; asking again will not help
	Denied     = "denied"      // 403: the caller may not
	NotFound   = "not-found"   // 404
	Conflict   = "conflict"    // 409: the kernel, or what is in force, is not as the request takes for granted
	TooLarge   = "too-large"   // 413: the body is over its limit
	NotReady   = "not-ready"   // 503: not yet, or not any more; ask again
	Internal   = "internal"    // 500

	// Streams only: the last event of a stream says why it ended.

	TooSlow  = "too-slow" // the reader fell behind by more than the queue holds
	Stopping = "stopping" // the daemon stops
)

// Errorf makes an Error with a code and a message.
func Errorf(code, format string, args ...any) *Error {
	e := &Error{Code: code, Message: fmt.Sprintf(format, args...)}
	e.Status = e.HTTPStatus()
	return e
}

// HTTPStatus is the status that goes with the code. An unknown code is the server's fault.
func (e *Error) HTTPStatus() int {
	switch e.Code {
	case BadRequest:
		return http.StatusBadRequest
	case Denied:
		return http.StatusForbidden
	case NotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case NotReady, Stopping, TooSlow:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// HasCode says whether err is, or wraps, an Error with this code.
func HasCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// DialError says that nobody answers at the socket, and what to do about it.
type DialError struct {
	Socket string
	Err    error // the errno
}

func (e *DialError) Error() string {
	return fmt.Sprintf("dial %s: %v; %s", e.Socket, e.Err, e.advice())
}

func (e *DialError) Unwrap() error { return e.Err }

func (e *DialError) advice() string {
	switch {
	case errors.Is(e.Err, os.ErrPermission):
		return "run as root, or as a member of the socket's group"
	case e.Socket == DefaultSocket:
		return "start it with: systemctl start bulkheadd"
	}
	return "start the bulkheadd whose configuration names this socket"
}

// dialError digs the errno out of what the HTTP transport made of a failed dial; nil when err is
// about something else.
func dialError(socket string, err error) *DialError {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		return nil
	}
	var errno syscall.Errno
	if errors.As(op, &errno) {
		return &DialError{Socket: socket, Err: errno}
	}
	return &DialError{Socket: socket, Err: op.Err}
}
