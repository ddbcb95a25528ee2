package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/sign"
)

func (a *app) policyKeygen() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key that signs policies",
		Long: `Make an ed25519 key that signs policies. FILE gets the private key (PEM, mode 0600) and is never
written over, FILE.pub the public one, which is printed as well: it goes into the daemons' configuration,
on every node alike:

  cluster:
    trust: [PUBLIC KEY]
    unsigned: refuse

Keep the private key away from the nodes: whoever takes a node over must not find it there.`,
		Args: exactly(1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			public, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			text, err := sign.FormatPrivate(key)
			if err != nil {
				return err
			}
			if err := writeNew(args[0], text, 0o600); err != nil {
				return err
			}
			if err := writeNew(args[0]+".pub", []byte(sign.FormatPublic(public)+"\n"), 0o644); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, sign.FormatPublic(public))
			return err
		},
	}
}

// writeNew writes a file that must not be there yet.
func writeNew(name string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	return nil
}

func (a *app) policySign() *cobra.Command {
	var keyFile string
	var removals, modes []string
	var renew bool
	cmd := &cobra.Command{
		Use:   "sign --key FILE FILE...",
		Short: "Sign policies, so that nodes take them from whoever passes them on",
		Long: `Sign policies, so that nodes take them from whoever passes them on.

The signature goes into each document as the annotation ` + sign.Annotation + `. It covers what the
document says, so comments, layout and what kubectl adds do not matter; any other change needs a new one.
Files are changed in place, nothing but that line; folders stand for their .yaml, .yml and .json files,
and - signs standard input to standard output. What holds a good signature of the key is left alone.

A signature holds its time: where two signed versions of a policy meet, the later one holds, so an old
one cannot be brought back. That is also why a deletion is signed, and a mode: with --removal and --mode a
document is printed that "bulkhead policy apply -f" takes where signatures are asked for.

With the annotation ` + sign.ClusterAnnotation + `: NAME a document is good for the cluster of that name only.`,
		Example: `  bulkhead policy sign --key team.key policies/
  bulkhead policy sign --key team.key --removal NetworkPolicy/shop/cart | bulkhead policy apply -f -
  bulkhead policy sign --key team.key --mode shop/cart=enforce | bulkhead policy apply -f -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile == "" {
				return usage(cmd, "%s: no --key given", cmd.CommandPath())
			}
			if (len(args) == 0) == (len(removals)+len(modes) == 0) {
				return usage(cmd, "%s: want FILEs to sign, or --removal and --mode", cmd.CommandPath())
			}
			key, err := readKey(keyFile)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return a.signFiles(key, args, renew)
			}
			return a.signOrders(cmd, key, removals, modes)
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyFile, "key", "", "file of the private key, see: bulkhead policy keygen")
	f.StringSliceVar(&removals, "removal", nil, "print a signed removal of this policy, KIND/[NAMESPACE/]NAME; /shadow behind it: of its shadow")
	f.StringSliceVar(&modes, "mode", nil, "print a signed mode, SERVICE=learn|alert|enforce|default; service *: all")
	f.BoolVar(&renew, "renew", false, "sign anew what is signed already: it wins over what was signed before")
	return cmd
}

func readKey(name string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	key, err := sign.ParsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("sign: %s: %w", name, err)
	}
	return key, nil
}

// signFiles signs all files, or writes none.
func (a *app) signFiles(key ed25519.PrivateKey, paths []string, renew bool) error {
	files, err := a.readFiles(paths)
	if err != nil {
		return err
	}
	texts := make([][]byte, len(files))
	counts := make([]int, len(files))
	for i, f := range files {
		if texts[i], counts[i], err = sign.File([]byte(f.Data), key, time.Now(), renew); err != nil {
			return fmt.Errorf("sign %s: %w; nothing was written", f.Name, err)
		}
	}
	for i, f := range files {
		if f.Name == "-" {
			if _, err := a.out.Write(texts[i]); err != nil {
				return err
			}
			continue
		}
		if counts[i] > 0 {
			if err := replaceFile(f.Name, texts[i]); err != nil {
				return fmt.Errorf("sign: %w", err)
			}
		}
		fmt.Fprintf(a.err, "%s: %s signed\n", f.Name, plural(counts[i], "document", "documents"))
	}
	return nil
}

// replaceFile puts a file in another's place, whole or not at all, with its mode.
func replaceFile(name string, text []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (a *app) signOrders(cmd *cobra.Command, key ed25519.PrivateKey, removals, modes []string) error {
	var orders []sign.Order
	for _, text := range removals {
		o, err := removalOf(text)
		if err != nil {
			return usage(cmd, "--removal %v", err)
		}
		orders = append(orders, o)
	}
	for _, text := range modes {
		o, err := modeOrder(text)
		if err != nil {
			return usage(cmd, "--mode %v", err)
		}
		orders = append(orders, o)
	}
	for i, o := range orders {
		text, _, err := sign.Text(o.Text(), key, time.Now(), false)
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		if i > 0 {
			fmt.Fprintln(a.out, "---")
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func removalOf(text string) (sign.Order, error) {
	o := sign.Order{Kind: sign.KindRemoval}
	name, shadow := strings.CutSuffix(text, "/shadow")
	parts := strings.Split(name, "/")
	o.Shadow = shadow
	switch {
	case len(parts) == 2:
		o.Of, o.Name = parts[0], parts[1]
		if o.Of == policy.KindPolicy || o.Of == policy.KindNetworkPolicy {
			o.Namespace = policy.DefaultNamespace
		}
	case len(parts) == 3:
		o.Of, o.Namespace, o.Name = parts[0], parts[1], parts[2]
	}
	if o.Of == "" || o.Name == "" {
		return o, fmt.Errorf("%q: want KIND/NAMESPACE/NAME, or KIND/NAME of a cluster-wide policy", text)
	}
	return o, nil
}

func modeOrder(text string) (sign.Order, error) {
	service, mode, ok := strings.Cut(text, "=")
	o := sign.Order{Kind: sign.KindMode, Name: service, Mode: mode}
	if service != "*" {
		o.Namespace, o.Name, _ = strings.Cut(qualified(service), "/")
	}
	if _, err := policy.ParseMode(mode); !ok || err != nil && mode != sign.DefaultMode || o.Name == "" {
		return o, fmt.Errorf("%q: want SERVICE=learn, alert, enforce or %s", text, sign.DefaultMode)
	}
	return o, nil
}
