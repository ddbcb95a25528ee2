package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/sign"
)

// verified is what policy verify says of one document.
type verified struct {
	File     string    `json:"file"`
	Document int       `json:"document"` // of the file, from 1
	Good     bool      `json:"good"`
	Key      string    `json:"key,omitempty"`
	Signed   time.Time `json:"signed,omitzero"`
	Cluster  string    `json:"cluster,omitempty"`
	Why      string    `json:"why,omitempty"` // it is not good
}

func (a *app) policyVerify() *cobra.Command {
	var trust []string
	cmd := &cobra.Command{
		Use:   "verify --trust KEY FILE...",
		Short: "Say who signed policies, and whether a node that trusts these keys would take them",
		Long: `Say who signed each document of the files, and whether a node that trusts these keys would take it.
It needs no daemon: a check for the repository that policies are reviewed in.

Exit codes: 0 all are good, 1 some are not, 2 wrong usage.`,
		Example: "  bulkhead policy verify --trust team.key.pub policies/",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(trust) == 0 {
				return usage(cmd, "%s: want --trust KEY and FILEs", cmd.CommandPath())
			}
			keys, err := readTrust(trust)
			if err != nil {
				return usage(cmd, "--trust: %v", err)
			}
			rows, err := a.verify(keys, args)
			if err != nil {
				return err
			}
			bad := 0
			for _, r := range rows {
				if !r.Good {
					bad++
				}
			}
			if err := a.print(rows, func() error { return a.printVerified(rows) }); err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("policy verify: %s not signed as wanted", plural(bad, "document is", "documents are"))
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&trust, "trust", nil, "a public key, or a file with one a line; may be repeated")
	return cmd
}

// readTrust reads keys that are given, or the files that hold them.
func readTrust(list []string) (sign.Trust, error) {
	var keys []string
	for _, text := range list {
		if _, err := sign.ParsePublic(text); err == nil {
			keys = append(keys, text)
			continue
		}
		data, err := os.ReadFile(text)
		if err != nil {
			return sign.Trust{}, fmt.Errorf("neither a public key nor a file that can be read: %w", err)
		}
		keys = append(keys, strings.Fields(string(data))...)
	}
	return sign.NewTrust(keys)
}

func (a *app) verify(keys sign.Trust, paths []string) ([]verified, error) {
	files, err := a.readFiles(paths)
	if err != nil {
		return nil, err
	}
	rows := []verified{}
	for _, f := range files {
		for i, part := range policy.Split([]byte(f.Data)) {
			s, err := keys.Verify(part)
			if errors.Is(err, sign.ErrEmpty) {
				continue
			}
			row := verified{File: f.Name, Document: i + 1, Good: err == nil, Key: s.Key, Signed: s.At, Cluster: s.Cluster}
			if err != nil {
				row.Why = err.Error()
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (a *app) printVerified(rows []verified) error {
	var out [][]string
	for _, r := range rows {
		verdict, signed := "good", ""
		if !r.Good {
			verdict = "bad"
		}
		if !r.Signed.IsZero() {
			signed = r.Signed.UTC().Format(time.RFC3339)
		}
		out = append(out, []string{fmt.Sprintf("%s#%d", r.File, r.Document), verdict, r.Key, signed, r.Why})
	}
	return a.table("DOCUMENT SIGNATURE KEY SIGNED WHY", out)
}
