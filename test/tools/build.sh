#!/bin/sh
# build.sh BIN_DIR: builds the reference CNI plugins and cnitool, at the versions that go.mod beside
# it pins, into BIN_DIR. Does nothing where that was done already; several may run at once.
set -eu
[ $# = 1 ] || { echo "usage: build.sh BIN_DIR" >&2; exit 2; }
mkdir -p "$1"
bin=$(cd "$1" && pwd)
cd "$(dirname "$0")"

plugins=github.com/containernetworking/plugins/plugins
# shellcheck disable=SC2086
set -- $plugins/main/bridge $plugins/main/ptp $plugins/main/macvlan $plugins/main/loopback \
  $plugins/ipam/host-local $plugins/ipam/static \
  $plugins/meta/portmap $plugins/meta/tuning $plugins/meta/firewall \
  github.com/containernetworking/cni/cnitool

# The lock goes with this shell, however it ends.
exec 9>"$bin/.lock"
flock 9
want=$(cat go.mod go.sum build.sh | sha256sum)
[ "$(cat "$bin/.built" 2>/dev/null)" = "$want" ] && exit 0

echo "building the reference CNI plugins into $bin (once, about a minute)" >&2
new=$(mktemp -d "$bin/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$new/" "$@"
mv "$new"/* "$bin/"
printf '%s\n' "$want" >"$bin/.built"
