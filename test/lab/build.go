package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build makes the programs that a lab needs into dir, from the checkout around the working directory,
// and puts the reference plugins of its bin/cni beside them: for tests that hold the code as it is.
func Build(dir string) error {
	root, err := checkout()
	if err != nil {
		return err
	}
	plugins := filepath.Join(root, "bin", "cni")
	for _, argv := range [][]string{
		{filepath.Join(root, "test", "tools", "build.sh"), plugins},
		{"go", "build", "-o", dir + "/", root + "/cmd/bulkhead", root + "/cmd/bulkheadd", root + "/cmd/bulkhead-cni", root + "/cmd/bulkhead-lab"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", argv, err, out)
		}
	}
	return os.Symlink(plugins, filepath.Join(dir, "cni"))
}

// checkout is the folder with go.mod at or above the working directory.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod at or above the working directory")
}
