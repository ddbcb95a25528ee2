package runtime

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// writeRootfs writes a container's files as a tar archive: busybox under all its names.
func (n *node) writeRootfs() string {
	n.t.Helper()
	data := n.rootfs()
	return n.write("rootfs.tar", string(data))
}

func (n *node) rootfs() []byte {
	n.t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		n.t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	names, err := exec.Command(path, "--list").Output()
	if err != nil {
		n.t.Fatal(err)
	}
	a := newArchive()
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "www"} {
		a.add(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, name := range strings.Fields(string(names)) {
		if name != "busybox" {
			a.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, nil)
		}
	}
	return a.bytes(n)
}

// writeImage writes a docker-archive of one layer.
func (n *node) writeImage(file, tag string, layer []byte, entrypoint ...string) string {
	n.t.Helper()
	sum := fmt.Sprintf("%x", sha256.Sum256(layer))
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": entrypoint, "Env": []string{"PATH=/bin"}, "Labels": map[string]string{"of": "image"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{tag}, "Layers": []string{sum + ".tar"}}})
	if err != nil {
		n.t.Fatal(err)
	}
	a := newArchive()
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Mode: 0o644}, manifest)
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: configName, Mode: 0o644}, config)
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: sum + ".tar", Mode: 0o644}, layer)
	return n.write(file, string(a.bytes(n)))
}

// archive is a tar archive in the making; the first error is kept.
type archive struct {
	buf bytes.Buffer
	w   *tar.Writer
	err error
}

func newArchive() *archive {
	a := &archive{}
	a.w = tar.NewWriter(&a.buf)
	return a
}

func (a *archive) add(h *tar.Header, data []byte) {
	h.Size, h.ModTime = int64(len(data)), time.Unix(0, 0)
	if a.err == nil {
		a.err = a.w.WriteHeader(h)
	}
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

func (a *archive) bytes(n *node) []byte {
	n.t.Helper()
	if a.err == nil {
		a.err = a.w.Close()
	}
	if a.err != nil {
		n.t.Fatal(a.err)
	}
	return a.buf.Bytes()
}
