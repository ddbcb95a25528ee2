package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy/suite"
)

// maxProbesFile bounds a file of probes, in bytes: two million of them.
const maxProbesFile = 256 << 20

func (a *app) policyVerdicts() *cobra.Command {
	var paths []string
	var probes string
	cmd := &cobra.Command{
		Use:   "verdicts -f FILE --probes FILE",
		Short: "Answer probes from policies and an inventory in files, without a daemon",
		Long: `Answer probes from policies and an inventory in files, without a daemon.

-f names policies (NetworkPolicy, Policy, ClusterNetworkPolicy and the older admin kinds) and the
inventory (Namespace, Pod, Service and Node manifests, or what "bulkhead workloads -o json" prints), in
any mixture of files. Probes are a JSON array of
  {"client": "ns/pod or IP", "server": "ns/pod or IP", "protocol": "TCP|UDP|SCTP|ICMP", "port": 80 or "name"}
and the answer is the same array with "egress", "ingress" and "verdict" ("allow" or "deny"), "onDeny"
("reject" or "drop") where a policy says how a denial is told, and the "reasons", or with "error" where there can be no verdict. It is what "bulkhead-lab probe" finds with
real packets: the node may talk to its own pods, DNS needs a rule like everything else, an address that
nobody has is the world. Exits with 1 where a name is nobody's.`,
		Example: "  bulkhead policy verdicts -f policies/ -f cluster.yaml --probes probes.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			if probes == "" {
				return usage(cmd, "%s: no probes given, want --probes FILE or --probes -", cmd.CommandPath())
			}
			list, err := a.readProbes(probes)
			if err != nil {
				return badInput(err)
			}
			off, err := a.readOffline(paths)
			if err != nil {
				return err
			}
			set := off.current()
			answers := make([]suite.Answer, len(list))
			for i := range list {
				answers[i] = off.cluster.Ask(set, &list[i])
			}
			if err := writeAnswers(a.out, list, answers); err != nil {
				return err
			}
			return nobody(list, answers)
		},
	}
	filesFlag(cmd, &paths)
	cmd.Flags().StringVar(&probes, "probes", "", "file of questions; - for standard input")
	if err := cmd.MarkFlagFilename("probes", "json"); err != nil {
		panic(err)
	}
	return cmd
}

func (a *app) readProbes(name string) ([]suite.Probe, error) {
	from := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read probes: %w", err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxProbesFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read probes: %w", err)
	case len(data) > maxProbesFile:
		return nil, fmt.Errorf("read probes: %s is larger than %d MiB; split it", name, maxProbesFile>>20)
	}
	return suite.ParseProbes(name, data)
}

// maxUnknown is how many probes to nobody are told.
const maxUnknown = 20

// nobody is the error of probes with an end that the inventory does not know, most likely a mistyped
// one. Their answers say so too, and the others have their verdicts.
func nobody(probes []suite.Probe, answers []suite.Answer) error {
	var errs []error
	n := 0
	for i := range answers {
		if !errors.Is(answers[i].Err, suite.ErrUnknown) {
			continue
		}
		if n++; n <= maxUnknown {
			errs = append(errs, fmt.Errorf("%s: %w", probes[i].Place(), answers[i].Err))
		}
	}
	if n > maxUnknown {
		errs = append(errs, fmt.Errorf("and %d more probes with an end that nobody has", n-maxUnknown))
	}
	return errors.Join(errs...)
}

// writeAnswers writes one probe a line, so that two answers can be compared with diff.
func writeAnswers(out io.Writer, probes []suite.Probe, answers []suite.Answer) error {
	w := bufio.NewWriterSize(out, 1<<16)
	line := make([]byte, 0, 1024)
	for i := range probes {
		line = append(line[:0], ",\n"...)
		if i == 0 {
			line = append(line[:0], "[\n"...)
		}
		var err error
		if line, err = answers[i].AppendJSON(line, &probes[i]); err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	end := "\n]\n"
	if len(probes) == 0 {
		end = "[]\n"
	}
	if _, err := w.WriteString(end); err != nil {
		return err
	}
	return w.Flush()
}
