// Package cluster holds full daemons to what a cluster promises: nodes of a lab, each with its own
// bulkheadd, over real UDP and TCP, with real connections between containers of different nodes. Its
// tests lose, delay, double and reorder what nodes say to each other, part them, kill and freeze
// daemons; `measure` in it tells how fast things spread.
//
// A [Town] is a lab with what such tests ask of it.
package cluster
