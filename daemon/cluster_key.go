package daemon

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// nodeKey reads the key with which this node signs what it says of itself, and makes it at the first
// start. Other nodes know the node by it: a node with another key is another node to them.
func nodeKey(dir string) (ed25519.PrivateKey, error) {
	file := filepath.Join(dir, "node.key")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		return key, writeSecret(file, base64.StdEncoding.EncodeToString(key.Seed())+"\n")
	}
	if err != nil {
		return nil, err
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err == nil && len(seed) != ed25519.SeedSize {
		err = fmt.Errorf("%d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; put the key back, or remove the file and have the other nodes forget this one (bulkhead cluster forget)", file, err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// maxKeyFile bounds the file of the cluster's keys, in bytes; a key is one line of 45.
const maxKeyFile = 64 << 10

// readKeyring reads the cluster's keys: base64, one a line, the first one encrypts. What follows a # is
// a comment.
func readKeyring(file string) ([][]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s: %d bytes, bound %d", file, info.Size(), maxKeyFile)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %#o lets others read the cluster's keys; chmod 600 %s", file, info.Mode().Perm(), file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
			return nil, fmt.Errorf("%s:%d: want a key of 16, 24 or 32 bytes in base64", file, n)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: holds no key; make one: head -c 32 /dev/urandom | base64", file)
	}
	return keys, nil
}

// writeKeyring writes the cluster's keys back after somebody changed them.
func writeKeyring(file string, keys [][]byte) error {
	var b bytes.Buffer
	for _, k := range keys {
		b.WriteString(base64.StdEncoding.EncodeToString(k) + "\n")
	}
	return writeSecret(file, b.String())
}

// writeSecret puts a file in place as a whole, readable by its owner only.
func writeSecret(file, text string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
