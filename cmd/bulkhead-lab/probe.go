package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

func probe(w *which) *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:   "probe --probes FILE",
		Short: "Send real packets and print the verdicts",
		Long: `Send real packets and print the verdicts. FILE is a JSON array of
  {"client": "ns/pod or IP", "server": "ns/pod or IP", "protocol": "TCP|UDP|SCTP|ICMP", "port": 80 or "name"}
and the answer is the same array with "verdict" ("allow" when an answer came back, else "deny"),
"latency_ms", and "error" where there can be no verdict. An address that nobody has becomes a host
of the outside network; a server may be a Service's address; ports where nobody listens get a
listener for the time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("probe: want questions: --probes FILE")
			}
			probes, err := readProbes(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			l, err := w.open()
			if err != nil {
				return err
			}
			start := time.Now()
			answers, err := l.Probe(cmd.Context(), probes)
			if err != nil {
				return err
			}
			summary(cmd.ErrOrStderr(), answers, time.Since(start))
			return writeProbes(answers, output, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&file, "probes", "", "file of questions; - for standard input")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file for the answers (default standard output)")
	return cmd
}

func readProbes(file string, in io.Reader) ([]lab.Probe, error) {
	var data []byte
	var err error
	if file == "-" {
		file = "standard input"
		data, err = io.ReadAll(in)
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	probes, err := lab.ParseProbes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return probes, nil
}

// writeProbes writes one probe a line, so that two answers can be compared with diff.
func writeProbes(probes []lab.Probe, file string, out io.Writer) error {
	var b bytes.Buffer
	b.WriteString("[")
	for i, p := range probes {
		text, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n")
		b.Write(text)
	}
	b.WriteString("\n]\n")
	if file == "" {
		_, err := out.Write(b.Bytes())
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func summary(out io.Writer, probes []lab.Probe, took time.Duration) {
	var allow, deny, failed int
	for _, p := range probes {
		switch {
		case p.Error != "":
			failed++
		case p.Verdict == "allow":
			allow++
		default:
			deny++
		}
	}
	fmt.Fprintf(out, "%d probes in %.1f s: %d allow, %d deny, %d error\n", len(probes), took.Seconds(), allow, deny, failed)
}
