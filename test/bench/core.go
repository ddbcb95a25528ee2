package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is what this process, both ends and the kernel's work for them, has used so far. Traffic over
// a veth is processed in the sender's context, so that the process's own time holds it.
func cpu() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// pin keeps this process on one core, so that a round's CPU time is not spread over two clocks.
func pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	// Every thread that exists; those that come later inherit it.
	return eachThread(func(tid int) error { return unix.SchedSetaffinity(tid, &set) })
}

func eachThread(do func(tid int) error) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := do(tid); err != nil {
			return fmt.Errorf("pin thread %d: %w", tid, err)
		}
	}
	return nil
}
