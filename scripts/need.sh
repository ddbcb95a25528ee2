#!/bin/sh
# need.sh PACKAGE-OF-WORK: makes sure that what the Makefile's targets stand on is there.
# Installs Debian/Ubuntu packages when it may (root and apt-get); else says exactly what is missing.
# usage: need.sh build | test | demo | bench
set -eu
want=1.24

die() { printf '%s\n' "$*" >&2; exit 1; }

command -v go >/dev/null 2>&1 || die "go: not found; Bulkhead needs Go $want or newer:
  Debian 13, Ubuntu 25.04 and newer:  apt-get install golang-go
  Debian 12:                          apt-get install -t bookworm-backports golang-1.24-go  (then PATH=/usr/lib/go-1.24/bin:\$PATH)
  Ubuntu 24.04:                       apt-get install golang-1.24-go  (then PATH=/usr/lib/go-1.24/bin:\$PATH)
  anywhere:                           the archive from go.dev/dl, unpacked to /usr/local"
have=$(go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')
lowest=$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)
[ "$lowest" = "$want" ] || die "go $have: too old; Bulkhead needs Go $want or newer (go env GOROOT: $(go env GOROOT))"

[ "${1:-build}" = build ] && exit 0

[ "$(id -u)" = 0 ] || die "make $1: needs root (network namespaces, nftables); run: sudo make $1"
[ "$(uname -s)" = Linux ] || die "make $1: needs Linux; this is $(uname -s)"

packages=""
need() { command -v "$1" >/dev/null 2>&1 || packages="$packages $2"; }
PATH=$PATH:/usr/sbin:/sbin
need ip iproute2
need nft nftables
need nsenter util-linux
if [ "$1" = test ]; then
  need gcc gcc
  # Container runtimes, which test/runtime starts with folders and namespaces of their own. A service
  # that a package may start is not used.
  need podman podman
  need conmon conmon
  need runc runc
  need containerd containerd
  # Images hold busybox and nothing else: the one that needs shared libraries will not do.
  bb=$(command -v busybox) && ! ldd "$bb" >/dev/null 2>&1 || packages="$packages busybox-static"
fi
[ -z "$packages" ] && exit 0

command -v apt-get >/dev/null 2>&1 || die "missing:$packages (Debian names); install them with your package manager and run make $1 again"
echo "installing$packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null || die "apt-get update: see above; missing:$packages"
# gcc without a C library's headers cannot build the race detector's glue.
case "$packages" in *gcc*) packages="$packages libc6-dev" ;; esac
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null || die "apt-get install$packages: see above"
