package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxEvents bounds what is read of Podman's answer, in bytes; an event has about one kilobyte, and
// the first one is enough.
const maxEvents = 4 << 20

// eventsPath works with Podman 4 and 5.
const eventsPath = "http://podman/v4.0.0/libpod/events"

// podmanEvents all carry the container's labels. "create" is the first of a container's life and
// comes before ADD; the others help where the log was cut since.
var podmanEvents = []string{"create", "start", "died"}

// podmanOwn are the attributes of an event that Podman adds to the container's labels. A label of
// the same name cannot be told from them.
var podmanOwn = []string{"image", "name", "containerExitCode", "podId", "health_status", "error"}

// podman is the REST service on a socket.
type podman struct {
	client *http.Client
}

func newPodman(socket string) podman {
	return podman{&http.Client{Transport: &http.Transport{
		// One question a container: a connection that is kept would only keep the service awake.
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		ResponseHeaderTimeout: answerWait,
		IdleConnTimeout:       time.Second,
	}}}
}

// ask reads the event log as it is, without a window: a container may be started again long after
// it was created. Neither the question nor its answer touches the container's lock.
//
// Source: https://docs.podman.io/en/v4.3/_static/api.html#tag/system/operation/SystemEventsLibpod.
func (p podman) ask(ctx context.Context, id string) (Found, bool, error) {
	filters, err := json.Marshal(map[string][]string{"container": {id}, "event": podmanEvents})
	if err != nil {
		return Found{}, false, err
	}
	query := url.Values{"stream": {"false"}, "filters": {string(filters)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, eventsPath+"?"+query.Encode(), nil)
	if err != nil {
		return Found{}, false, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		if notThere(err) {
			return Found{}, false, nil
		}
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err // its text is the long question once more
		}
		return Found{}, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only to be shown
		return Found{}, false, fmt.Errorf("events: %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return readEvents(resp.Body, id)
}

// event is what we read of an event; the API follows Docker's.
type event struct {
	Type  string
	Actor struct {
		ID         string
		Attributes map[string]string
	}
}

// readEvents finds the first event of a container. Podman's filter also takes names and beginnings
// of ids, so that the id is compared once more.
func readEvents(r io.Reader, id string) (Found, bool, error) {
	for dec := json.NewDecoder(io.LimitReader(r, maxEvents)); ; {
		var e event
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			return Found{}, false, nil
		}
		if err != nil {
			return Found{}, false, fmt.Errorf("events: %w", err)
		}
		if e.Type != "container" || e.Actor.ID != id || id == "" {
			continue
		}
		attributes := maps.Clone(e.Actor.Attributes)
		name := attributes["name"]
		for _, key := range podmanOwn {
			delete(attributes, key)
		}
		return Found{Labels: ofContainer(attributes), Name: name}, true, nil
	}
}
