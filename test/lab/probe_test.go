package lab

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestProbeJSON holds the file format: questions come back as they went in, with the answer behind.
func TestProbeJSON(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"client":"a/b","server":"10.0.0.1","protocol":"TCP","port":80}`,
			`{"client":"a/b","server":"10.0.0.1","protocol":"TCP","port":80,"verdict":"deny","latency_ms":1.5}`},
		{`{"port":"http","server":"a/b","client":"c/d","protocol":"udp","id":7,"a":{"b":[1]}}`,
			`{"client":"c/d","server":"a/b","protocol":"udp","port":"http","a":{"b":[1]},"id":7,"verdict":"deny","latency_ms":1.5}`},
		{`{"client":"a/b","server":"c/d","port":"53","protocol":"UDP","verdict":"allow","latency_ms":3,"error":"old"}`,
			`{"client":"a/b","server":"c/d","protocol":"UDP","port":53,"verdict":"deny","latency_ms":1.5}`},
		{`{"client":"a/b","server":"c/d","protocol":"ICMP","port":null}`,
			`{"client":"a/b","server":"c/d","protocol":"ICMP","verdict":"deny","latency_ms":1.5}`},
	} {
		probes, err := ParseProbes([]byte("[" + c.in + "]"))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		probes[0].Verdict, probes[0].LatencyMS = "deny", 1.5
		got, err := json.Marshal(probes[0])
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\n got %s %v\nwant %s", c.in, got, err, c.want)
		}
	}
}

func TestParseProbesErrors(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:  "probes: want an array of objects",
		`[1]`: "probe 0: want an object",
		`[{"client":"a","server":"b","port":70000}]`:               "probe 0: port: port 70000: want a number from 1 to 65535 or a name",
		`[{"client":"a","server":"b","port":true}]`:                "probe 0: port: port true: want",
		`[{"client":"a","server":"b","protocol":"TPC","port":80}]`: `probe 0: protocol "TPC": want TCP`,
		`[{"client":"a","server":"b","protocol":"47"}]`:            "probe 0: protocol 47: want TCP, UDP, SCTP or ICMP",
		`[{"client":"a","server":"b","port":80},{"server":"b"}]`:   "probe 1: want client and server",
	} {
		_, err := ParseProbes([]byte(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", in, err, want)
		}
	}
}

// FuzzParseProbes holds that no input panics and that what is taken can be written and read again.
func FuzzParseProbes(f *testing.F) {
	f.Add([]byte(`[{"client":"a/b","server":"10.0.0.1","protocol":"TCP","port":80},{"client":"a","server":"b","port":"http","x":null}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		probes, err := ParseProbes(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(probes)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseProbes(text)
		if err != nil || len(again) != len(probes) {
			t.Fatalf("%s: %v", text, err)
		}
		for i := range probes {
			if again[i].Client != probes[i].Client || again[i].Port != probes[i].Port {
				t.Errorf("%+v came back as %+v", probes[i], again[i])
			}
		}
	})
}
