#!/usr/bin/env bash
# Every check and every test; with arguments, only the tests that they pick for pytest. What runs in the lab, which is
# one processor's work for the most part, runs beside the rest, and is told in the end.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest=.venv/bin/pytest lab_tests=tests/lab/inside lab_log=build/lab.log

# In a session of its own, so that all of it can be ended, whatever the reason.
lab_begins() {
  setsid "$pytest" "$lab_tests" >"$lab_log" 2>&1 &
  lab=$!
  trap 'kill -INT -- "-$lab" 2>/dev/null || true' EXIT
}

lab_ends() {
  local code=0
  wait "$lab" || code=$?
  cat "$lab_log"
  return "$code"
}

code=0
[ $# -gt 0 ] || lab_begins
scripts/lint.sh
scripts/go.sh test -C guest_agent ./...
if [ $# -gt 0 ]; then
  exec "$pytest" "$@"
fi
"$pytest" --ignore="$lab_tests" || code=$?
lab_ends || code=$?
exit "$code"
