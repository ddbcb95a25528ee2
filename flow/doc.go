// Package flow turns flow records into a service graph, a baseline and a suggested policy. It is
// pure: records and names come in, edges and YAML come out. It opens no socket and reads no clock.
package flow
