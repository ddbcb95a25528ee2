// Package server answers the API on a unix socket: HTTP/JSON, and server-sent events for streams.
// Its main types are [Server] and [Backend], which the daemon implements.
//
// It decides who may speak (peer credentials), how much (bodies, queues, streams and times are
// bounded) and in what form (unknown fields and parameters are errors). It knows nothing of what
// the answers mean.
package server
