package cni_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// TestGolden runs the built plugin as a runtime does, one testdata/golden/*.txtar at a time:
//
//	a comment that says why
//	-- env --      CNI_ variables that differ from the usual; "X=" leaves X out
//	-- stdin --    the configuration
//	-- daemon --   away | ready | hang | CODE MESSAGE: what answers at the socket
//	-- want --     exit code, stdout, what the daemon heard, what the journal holds
//
// $SOCKET, $PENDING, $NETNS (a namespace), $HOST (the node's own), $MNT (a mount
// namespace) and $FILE (a plain file) stand
// for paths of the run.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	part := map[string]string{}
	for _, f := range ar.Files {
		part[f.Name] = string(f.Data)
	}
	bin := filepath.Join(plugin(t), "bulkhead-cni")
	enterNode(t)
	dir := t.TempDir()
	paths := map[string]string{
		"$SOCKET": dir + "/api.sock", "$PENDING": dir + "/pending", "$NETNS": newPod(t),
		"$HOST": fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()), "$FILE": dir + "/file",
	}
	if err := os.WriteFile(paths["$FILE"], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{socket: paths["$SOCKET"]}
	switch state, message, _ := strings.Cut(strings.TrimSpace(part["daemon"]), " "); state {
	case "away":
	case "ready":
		d.start(t)
	case "hang":
		d.answer = hang
		d.start(t)
	default:
		d.answer = refuse(state, message)
		d.start(t)
	}

	cmd := exec.Command(bin)
	cmd.Env = environment(expand(part["env"], paths))
	cmd.Stdin = strings.NewReader(expand(part["stdin"], paths))
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	got := fmt.Sprintf("exit %d\n", cmd.ProcessState.ExitCode())
	if stdout.Len() > 0 {
		got += strings.TrimSpace(stdout.String()) + "\n"
	}
	for _, r := range d.take() {
		got += "heard " + heard(r) + "\n"
	}
	pending, _ := filepath.Glob(paths["$PENDING"] + "/*")
	for _, p := range pending {
		got += "journal " + filepath.Base(p) + "\n"
	}
	got = contract(got, paths)
	if got == part["want"] {
		return
	}
	if !*update {
		t.Errorf("got\n%swant\n%s", got, part["want"])
		return
	}
	for i := range ar.Files {
		if ar.Files[i].Name == "want" {
			ar.Files[i].Data = []byte(got)
		}
	}
	if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
		t.Fatal(err)
	}
}

// heard is a request in one line.
func heard(r api.CNIRequest) string {
	s := r.Command
	if r.ContainerID != "" {
		s += fmt.Sprintf(" %s/%s in %s", r.ContainerID, r.IfName, r.NetNS)
	}
	if r.Command == "GC" {
		s += fmt.Sprintf(" valid %v", r.Valid)
	}
	return s
}

func environment(changes string) (env []string) {
	vars := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
	for _, line := range strings.Split(changes, "\n") {
		if k, v, ok := strings.Cut(line, "="); ok {
			vars[k] = v
		}
	}
	for k, v := range vars {
		if v != "" {
			env = append(env, k+"="+v)
		}
	}
	sort.Strings(env)
	return env
}

func expand(s string, paths map[string]string) string {
	for name, path := range paths {
		s = strings.ReplaceAll(s, name, path)
	}
	return s
}

func contract(s string, paths map[string]string) string {
	for name, path := range paths {
		s = strings.ReplaceAll(s, path, name)
	}
	return s
}
