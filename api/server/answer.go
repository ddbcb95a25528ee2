package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// answer writes v as JSON, or err. It is encoded whole before the first byte goes out, so that an
// answer is never half of one.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	var body []byte
	if err == nil {
		body, err = json.Marshal(v)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(body, '\n'))
}

func (s *Server) text(w http.ResponseWriter, r *http.Request, contentType, text string, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", contentType)
	io.WriteString(w, text)
}

// done answers a call that returns nothing.
func (s *Server) done(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// fail writes err as an api.Error. The caller is told everything: whoever may call may know.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	body, _ := json.Marshal(e) // strings only
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.HTTPStatus())
	w.Write(append(body, '\n'))
	if e.HTTPStatus() == http.StatusInternalServerError {
		s.log.Warn("call ended in an error", "method", r.Method, "path", r.URL.Path, "err", err)
	}
}

// asError keeps an *api.Error that stands alone; one that was wrapped on the way gets the whole
// sentence with its code, and anything else is internal.
func asError(err error) *api.Error {
	if e, ok := err.(*api.Error); ok { //nolint:errorlint // wrapped ones follow
		return e
	}
	var e *api.Error
	if errors.As(err, &e) {
		return &api.Error{Code: e.Code, Message: err.Error()}
	}
	return api.Errorf(api.Internal, "%v", err)
}
