package cni

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// Codes of the specification that the types package does not name.
const codeUnavailable uint = 50 // STATUS: the plugin cannot service ADD requests

// Codes of ours; the specification leaves 100 and up to plugins.
const (
	codeRefused uint = 100 // the daemon was reached and refuses; trying again will not help
	codeDiffers uint = 101 // CHECK: what the kernel holds is not what should be there
)

// fail makes the error that the runtime sees: msg is a sentence, the cause goes in details.
func fail(code uint, cause error, format string, args ...any) *types.Error {
	e := types.NewError(code, fmt.Sprintf(format, args...), "")
	if cause != nil {
		e.Details = cause.Error()
	}
	return e
}

// away says that the daemon could not be asked, or says itself that it cannot answer yet: nobody
// listens, the connection broke, the time is over. What it refuses is something else.
func away(err error) bool {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code == api.NotReady || e.Code == api.Stopping
	}
	return err != nil
}

// awaySentence says in which way the daemon is away.
func awaySentence(err error, timeout time.Duration) string {
	var dial *api.DialError
	var e *api.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("bulkheadd did not answer within %v", timeout)
	case errors.As(err, &e):
		return "bulkheadd is not ready"
	case errors.As(err, &dial):
		return "bulkheadd is away"
	}
	return "bulkheadd broke off"
}

// daemonError turns what the daemon, or the way to it, answered into the specification's codes.
func daemonError(command string, err error, c *Config) *types.Error {
	if away(err) {
		code := types.ErrTryAgainLater
		if command == "STATUS" {
			code = codeUnavailable
		}
		return fail(code, err, "%s: %s", awaySentence(err, c.Timeout), consequence[command])
	}
	var e *api.Error
	errors.As(err, &e) // always: what is not an api.Error is away
	code := codeRefused
	switch {
	case command == "STATUS":
		code = codeUnavailable
	case command == "CHECK" && e.Code == api.NotFound:
		code = types.ErrUnknownContainer
	case command == "CHECK" && e.Code == api.Conflict:
		code = codeDiffers
	case e.Code == api.Internal:
		code = types.ErrInternal
	}
	r := types.NewError(code, "bulkheadd: "+e.Message, e.Details)
	return r
}

// consequence is the second half of the sentence when the daemon is away.
var consequence = map[string]string{
	"ADD":    "the container would start without its rules; try again later",
	"CHECK":  "what is in force cannot be told; try again later",
	"GC":     "nothing was cleaned; try again later",
	"STATUS": "no container can be added",
}
