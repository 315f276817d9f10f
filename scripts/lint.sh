#!/usr/bin/env bash
# Every static check, one line each; a failed one shows what it said, and the others still run.
# shellcheck disable=SC2317 # functions are called through check
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PATH="$PWD/.venv/bin:$PATH"
failed=0

check() {
  local name=$1 output started=$EPOCHREALTIME verdict=ok
  shift
  output=$("$@" 2>&1) || verdict=FAIL
  printf '%-4s %-40s %5.1f s\n' "$verdict" "$name" "$(seconds_since "$started")"
  if [ "$verdict" = FAIL ]; then
    printf '%s\n' "$output" | sed 's/^/     /'
    failed=1
  fi
}

seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { print to - from }'; }

gofmt_changes_nothing() {
  local files
  files=$(scripts/go.sh gofmt -l guest_agent image_puller) || return
  [ -z "$files" ] || { printf 'not formatted (make format does it):\n%s\n' "$files"; return 1; }
}

generated_code_is_current() {
  local scratch status
  scratch=$(mktemp -d)
  scripts/generate_proto.sh "$scratch/python" "$scratch/go" &&
    diff -r --exclude=__pycache__ "$scratch/python" proto/gen &&
    diff -r "$scratch/go/internal/agentpb" guest_agent/internal/agentpb
  status=$?
  rm -rf "$scratch"
  [ "$status" -eq 0 ] || { echo "proto/ changed since: 'make proto' generates anew"; return 1; }
}

# Of several modules buf itself would compare the first only.
no_breaking_change() {
  local reference=$1
  shift
  buf build "${@/#/--path=}" -o - | buf breaking - --against "$reference"
}

check "ruff: rules" ruff check --quiet .
check "ruff: format" ruff format --quiet --check .
check "mypy: types, strict" mypy api_server cli host_helper testing tests scripts hatch_build.py
check "import-linter: layers" lint-imports --no-logo
check "buf: proto style" buf lint
check "buf: no breaking change for clients" no_breaking_change proto/ref.binpb proto/ingle/v1
check "buf: none for helper and agent" no_breaking_change proto/ref-internal.binpb proto/ingle/helper proto/ingle/agent
check "generated code is current" generated_code_is_current
check "gofmt" gofmt_changes_nothing
check "go vet: guest agent" scripts/go.sh vet -C guest_agent ./...
check "go vet: image puller" scripts/go.sh vet -C image_puller ./...
check "shellcheck" shellcheck --external-sources scripts/*.sh scripts/deb/p* .ci/run
exit "$failed"
