package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// initEnv tells the test program to be a node's init; it names the node's folder.
const initEnv = "BULKHEAD_RUNTIME_INIT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(initEnv); dir != "" {
		if err := beInit(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// beInit makes the new namespaces a node and then waits for whatever is left to it. It ends by
// being killed, and the kernel then ends every process of the node.
func beInit(dir string) error {
	if err := ownMounts(dir); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"netns", "add", "world"},
		{"link", "add", "out", "type", "veth", "peer", "name", "eth0", "netns", "world"},
		{"addr", "add", "192.0.2.254/24", "dev", "out"},
		{"link", "set", "out", "up"},
		{"-n", "world", "addr", "add", "192.0.2.1/24", "dev", "eth0"},
		{"-n", "world", "link", "set", "lo", "up"},
		{"-n", "world", "link", "set", "eth0", "up"},
		{"-n", "world", "route", "add", "default", "via", "192.0.2.254"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	fmt.Println("ready") // the test reads it
	for range ended {
		for { // one signal may stand for many
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

// ownMounts hides from the machine, and the machine from the node, what runtimes share.
func ownMounts(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	for _, target := range []string{"/run", "/var/lib", "/dev/shm"} {
		if err := unix.Mount("tmpfs", target, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("tmpfs on %s: %w", target, err)
		}
	}
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", etc, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", etc, err)
	}
	if out, err := exec.Command("cp", "-a", "/etc/.", etc).CombinedOutput(); err != nil {
		return fmt.Errorf("copy /etc: %w: %s", err, out)
	}
	if err := unix.Mount(etc, "/etc", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /etc: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	return nil
}
