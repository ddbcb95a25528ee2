package api

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadEvents(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"items":            {"event: item\ndata: 1\n\nevent: item\ndata: 2\n\n", "item=1 item=2 cut"},
		"a sign of life":   {":\n\nevent: item\ndata: 1\n\n:\n\n", "item=1 cut"},
		"two data lines":   {"data: a\ndata: b\n\n", "=a\nb cut"},
		"no space":         {"event:item\ndata:1\n\n", "item=1 cut"},
		"CRLF":             {"event: item\r\ndata: 1\r\n\r\n", "item=1 cut"},
		"no data":          {"event: item\n\ndata: 1\n\n", "=1 cut"},
		"broken off":       {"event: item\ndata: 1\n", "cut"},
		"unknown fields":   {"id: 4\nretry: 9\ndata: 1\n\n", "=1 cut"},
		"a line too long":  {"data: " + strings.Repeat("x", maxEvent) + "\n\n", "bufio.Scanner: token too long"},
		"an event too big": {strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 1100), "an event of more than 1048576 bytes"},
		"nothing":          {"", "cut"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := readEvents(iotest.HalfReader(strings.NewReader(tc.in)), func(name string, data []byte) error {
				got = append(got, fmt.Sprintf("%s=%s", name, data))
				return nil
			})
			if errors.Is(err, errStreamCut) {
				err = errors.New("cut")
			}
			got = append(got, err.Error())
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %.80q, want %q", s, tc.want)
			}
		})
	}
}

func TestReadEventsStops(t *testing.T) {
	n := 0
	err := readEvents(strings.NewReader("data: 1\n\ndata: 2\n\n"), func(string, []byte) error { n++; return io.ErrShortWrite })
	if !errors.Is(err, io.ErrShortWrite) || n != 1 {
		t.Errorf("%d calls, %v", n, err)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("event: item\ndata: {}\n\n:\n\nevent: end\ndata: {}\n\n")
	f.Fuzz(func(t *testing.T, in string) {
		var bytes int
		readEvents(strings.NewReader(in), func(name string, data []byte) error {
			bytes += len(name) + len(data)
			return nil
		})
		if bytes > len(in) {
			t.Errorf("%d bytes out of %d", bytes, len(in))
		}
	})
}
