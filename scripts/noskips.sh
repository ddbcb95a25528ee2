#!/bin/sh
# noskips.sh test.json: fails when a test of the run was skipped, and names it. The input is what
# `go test -json` prints.
set -eu
skipped=$(grep '"Action":"skip"' "$1" | grep '"Test":' | sed -E 's/.*"Package":"([^"]*)".*"Test":"([^"]*)".*/\1 \2/' || true)
[ -z "$skipped" ] && exit 0
printf 'skipped tests (every test must run):\n%s\n' "$skipped" >&2
exit 1
