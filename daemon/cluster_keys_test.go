package daemon

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// The cluster's key is replaced through the API of one node, and every node's file says so after each
// step, readable by its owner only.
func TestReplaceClusterKey(t *testing.T) {
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "me.keys"), filepath.Join(dir, "other.keys")}
	old := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	fresh := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{2}, 32))
	var nodes []*gossip.Cluster
	for i, name := range []string{"me", "other"} {
		if err := os.WriteFile(files[i], []byte("# the cluster's\n"+old+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		conf := joinTest(t, name)
		var err error
		if conf.Keyring, err = readKeyring(files[i]); err != nil {
			t.Fatal(err)
		}
		conf.KeysChanged = func(keys [][]byte) error { return writeKeyring(files[i], keys) }
		if i > 0 {
			conf.Seeds = []string{nodes[0].Members()[0].Address.String()}
		}
		g, err := gossip.Join(context.Background(), conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		nodes = append(nodes, g)
	}
	d := New(Config{Node: "me", Cluster: &ClusterConfig{Name: "test"}}, slog.New(slog.DiscardHandler))
	if _, err := d.ClusterKeys(ctx, api.KeyOrder{Do: api.KeysList}); err == nil || !strings.Contains(err.Error(), "no cluster") {
		t.Errorf("alone: %v", err)
	}
	d.cluster = newCluster(d)
	d.cluster.Cluster = nodes[0]
	eventually(t, 20*time.Second, "two members", func() error {
		if n := len(nodes[0].Members()); n != 2 {
			return &isError{"not two"}
		}
		return nil
	})
	order := func(o api.KeyOrder, want string) {
		t.Helper()
		r, err := d.ClusterKeys(ctx, o)
		if err != nil || r.Refused != "" || len(r.Nodes) != 2 {
			t.Fatalf("%+v: %+v, %v", o, r, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			info, statErr := os.Stat(f)
			if err != nil || statErr != nil || string(text) != want || info.Mode().Perm() != 0o600 {
				t.Errorf("%+v: %s holds %q, mode %v", o, f, text, info.Mode())
			}
		}
	}
	refused := func(o api.KeyOrder, want string) {
		t.Helper()
		r, err := d.ClusterKeys(ctx, o)
		if err != nil {
			r.Refused = err.Error()
		}
		if !strings.Contains(r.Refused, want) {
			t.Errorf("%+v: %+v, want %q", o, r, want)
		}
	}
	oldName, freshName := gossip.Fingerprint(bytes.Repeat([]byte{1}, 32)), gossip.Fingerprint(bytes.Repeat([]byte{2}, 32))
	refused(api.KeyOrder{Do: api.KeysUse, Fingerprint: freshName}, "no node has it")
	refused(api.KeyOrder{Do: api.KeysRemove, Fingerprint: oldName[:4]}, "encrypts with it")
	refused(api.KeyOrder{Do: api.KeysInstall, Key: "short"}, "want 16, 24 or 32 bytes in base64")
	refused(api.KeyOrder{Do: "burn"}, `do "burn"`)
	order(api.KeyOrder{Do: api.KeysInstall, Key: fresh}, old+"\n"+fresh+"\n")
	refused(api.KeyOrder{Do: api.KeysUse}, "which key?")
	order(api.KeyOrder{Do: api.KeysUse, Fingerprint: freshName[:6]}, fresh+"\n"+old+"\n")
	order(api.KeyOrder{Do: api.KeysRemove, Fingerprint: oldName[:6]}, fresh+"\n")
}
