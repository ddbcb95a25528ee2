package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// newKey is how many bytes a generated key has: AES-256.
const newKey = 32

func (a *app) clusterKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Replace the key that nodes encrypt with, while they run",
		Long: `Replace the key that nodes encrypt with, while they run: on all nodes, in three steps, of which each is
refused while a node lags behind the one before.

  bulkhead cluster keys generate > new.key     make one
  bulkhead cluster keys install new.key        all nodes understand it
  bulkhead cluster keys use FINGERPRINT        all nodes speak it
  bulkhead cluster keys remove FINGERPRINT     all nodes forget the old one

No message is lost on the way, and each node writes its keyFile back (mode 0600). A node that is away
must come back first, or be forgotten for good: bulkhead cluster forget.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.keysGenerate(),
		a.keysStep("list", "Show which keys each node has, by fingerprint", nil),
		a.keysStep("install FILE", "Give all nodes a further key, from a file or - for standard input", readNewKey),
		a.keysStep("use FINGERPRINT", "Make all nodes encrypt with a key that all have", fingerprint),
		a.keysStep("remove FINGERPRINT", "Make all nodes forget a key that none encrypts with", fingerprint))
	return cmd
}

func (a *app) keysGenerate() *cobra.Command {
	return &cobra.Command{
		Use:   "generate",
		Short: "Make a key (AES-256) and print it; it needs no daemon",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			key := make([]byte, newKey)
			if _, err := rand.Read(key); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.out, base64.StdEncoding.EncodeToString(key))
			return err
		},
	}
}

// keysStep is a command that gives one order. fill puts its argument into the order; nil: it has none.
func (a *app) keysStep(use, short string, fill func(a *app, o *api.KeyOrder, arg string) error) *cobra.Command {
	do, arg, _ := strings.Cut(use, " ")
	args := noArgs
	if fill != nil {
		args = exactly(1, arg)
	}
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := api.KeyOrder{Do: do}
			if fill != nil {
				if err := fill(a, &o, args[0]); err != nil {
					return err
				}
			}
			r, err := a.client().ClusterKeys(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := a.print(r, func() error { return a.printKeys(r) }); err != nil {
				return err
			}
			if r.Refused != "" {
				return refused("%s", r.Refused)
			}
			return nil
		},
	}
}

func fingerprint(_ *app, o *api.KeyOrder, arg string) error {
	o.Fingerprint = arg
	return nil
}

// readNewKey reads the key from a file, never from the command line, which others can see.
func readNewKey(a *app, o *api.KeyOrder, arg string) error {
	from := a.in
	if arg != "-" {
		f, err := os.Open(arg)
		if err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, 4096))
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	o.Key = string(bytes.TrimSpace(text))
	return nil
}

func (a *app) printKeys(r api.KeyReport) error {
	var rows [][]string
	for _, n := range r.Nodes {
		var also []string
		for _, k := range n.Keys {
			if k != n.Primary {
				also = append(also, k)
			}
		}
		rows = append(rows, []string{n.Node, n.Primary, strings.Join(also, ","), n.Error})
	}
	return a.table("NODE ENCRYPTS DECRYPTS-TOO ERROR", rows)
}
