package api

import (
	"context"
	"net/http"
)

// PathClusterKeys takes orders about the cluster's AES keys: POST KeyOrder: KeyReport.
const PathClusterKeys = "/v1/cluster/keys"

// What a [KeyOrder] does, on all nodes.
const (
	KeysList    = "list"
	KeysInstall = "install" // Key: all decrypt with it too
	KeysUse     = "use"     // Fingerprint: all encrypt with it
	KeysRemove  = "remove"  // Fingerprint: all forget it
)

// KeyOrder is one step of replacing the key that the cluster's messages are encrypted with.
type KeyOrder struct {
	Do          string `json:"do"`
	Key         string `json:"key,omitempty"`         // base64 of 16, 24 or 32 bytes
	Fingerprint string `json:"fingerprint,omitempty"` // of a key, or its first letters
}

// NodeKeys is what one node answers. Keys themselves are never told.
type NodeKeys struct {
	Node    string   `json:"node"`
	Primary string   `json:"primary,omitempty"` // fingerprint of the key that it encrypts with
	Keys    []string `json:"keys"`              // fingerprints of all that it decrypts with
	Error   string   `json:"error,omitempty"`   // it did not answer, or did not do it
}

// KeyReport is the state of all nodes after an order.
type KeyReport struct {
	Nodes   []NodeKeys `json:"nodes"`
	Refused string     `json:"refused,omitempty"` // the order was not carried out, or not by all: which nodes, and what to do
}

// ClusterKeys gives an order about keys to all nodes.
func (c *Client) ClusterKeys(ctx context.Context, o KeyOrder) (KeyReport, error) {
	return send[KeyReport](ctx, c, http.MethodPost, PathClusterKeys, o)
}
