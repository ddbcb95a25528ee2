package runtimes

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"
)

// TestBounds: whoever runs a container cannot make us keep more than its share.
func TestBounds(t *testing.T) {
	many := map[string]string{"long": strings.Repeat("x", maxLabelValue+1), strings.Repeat("k", maxLabelKey+1): "v", "": "empty"}
	for i := range 2 * maxLabels {
		many[fmt.Sprintf("l%04d", i)] = "v"
	}
	got := ofContainer(many)
	if len(got) != maxLabels || got["l0000"] != "v" || got["l0255"] != "v" || got["l0256"] != "" {
		t.Errorf("%d labels, want the first %d in order", len(got), maxLabels)
	}
	if again := ofContainer(many); !maps.Equal(got, again) {
		t.Error("asking again gives other labels")
	}
	if got := ofContainer(map[string]string{"io.cri-containerd.kind": "sandbox", "io.kubernetes.pod.uid": "1", "io.buildah.version": "1.28"}); got != nil {
		t.Errorf("bookkeeping became labels: %v", got)
	}
}

func within(t *testing.T, f Found) {
	t.Helper()
	if len(f.Labels) > maxLabels {
		t.Errorf("%d labels", len(f.Labels))
	}
	for k, v := range f.Labels {
		if k == "" || len(k) > maxLabelKey || len(v) > maxLabelValue {
			t.Errorf("label %q of %d bytes", k, len(v))
		}
	}
}

// FuzzEvents: nothing that comes from Podman's socket panics, and nothing is believed of another
// container.
func FuzzEvents(f *testing.F) {
	f.Add(webEvent+"\n"+podEvent, "web1")
	f.Add(`{"Type":"container","Actor":{"ID":"a","Attributes":null}}`, "a")
	f.Add("[]", "")
	f.Fuzz(func(t *testing.T, body, id string) {
		found, known, err := readEvents(strings.NewReader(body), id)
		if known && (err != nil || id == "" || !strings.Contains(body, `"`)) {
			t.Errorf("%+v, %v of %q for %q", found, err, body, id)
		}
		within(t, found)
	})
}

// FuzzPodRecord: nor does a record of containerd.
func FuzzPodRecord(f *testing.F) {
	f.Add([]byte(podRecord))
	f.Add([]byte(`{"Metadata":{"Config":null}}`))
	f.Add([]byte(`{"Metadata":{"Config":{"labels":{"a":1}}}}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		found, _ := describe(map[string]string{"of": "record"}, &anypb.Any{Value: record})
		if found.Labels["of"] == "record" && !strings.Contains(string(record), "record") {
			t.Error("the record's labels came through")
		}
		within(t, found)
	})
}
