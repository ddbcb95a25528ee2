// Package api holds the types that the daemon speaks over its unix socket (HTTP/JSON, and SSE for
// streams) and a client for them. The CNI plugin links it: it imports the standard library only.
// The server is in api/server.
package api
