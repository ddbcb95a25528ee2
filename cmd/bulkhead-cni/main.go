// Command bulkhead-cni is the chained CNI plugin. A container runtime calls it with its request in
// CNI_* variables and on stdin; package cni says what it does.
package main

import (
	"runtime/debug"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bulkhead-firewall/bulkhead/cni"
)

func main() {
	skel.PluginMainFuncs(cni.Funcs(), cni.Versions, "CNI plugin bulkhead-cni "+version())
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
