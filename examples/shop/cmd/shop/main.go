// Command shop plays one part of the demo shop in the network namespace that it is started in, or
// an attacker or a listening ear for the demo.
//
//	shop manifests                     write shop.yaml to standard output
//	shop play PART [-report FILE]      a service, an external, node (probes) or world (shoppers)
//	shop hear -for TEXT -from IPS ...  count frames that reach this namespace
//	shop attack KIND ...               connect, scan, raw or spoof
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/bulkhead-firewall/bulkhead/examples/shop"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want manifests, play, hear or attack")
	}
	switch verb, args := args[0], args[1:]; verb {
	case "manifests":
		return manifests()
	case "play":
		return play(ctx, args)
	case "hear":
		return hear(ctx, args)
	case "attack":
		return attack(ctx, args)
	default:
		return fmt.Errorf("%q: want manifests, play, hear or attack", verb)
	}
}

func manifests() error {
	g, err := shop.Load()
	if err != nil {
		return err
	}
	b, err := shop.Manifests(g)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

func play(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("shop play PART", flag.ContinueOnError)
	var part shop.Part
	f.StringVar(&part.Report, "report", "", "file for the counts of calls and failures, rewritten as they grow")
	f.BoolVar(&part.Once, "once", false, "make each of its calls once and end")
	f.Func("dns", "the resolver's address (default: the shop's kube-dns)", func(s string) (err error) {
		part.DNS, err = netip.ParseAddr(s)
		return err
	})
	f.Func("from", "local address of its calls (default: the kernel chooses)", func(s string) (err error) {
		part.From, err = netip.ParseAddr(s)
		return err
	})
	if len(args) == 0 {
		return errors.New("play: which part?")
	}
	part.Name = args[0]
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	return shop.Play(ctx, part)
}
