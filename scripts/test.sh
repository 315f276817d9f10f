#!/usr/bin/env bash
# Every check and every test; with arguments, only the tests that they pick for pytest. The lab's disk takes minutes to
# make, and only the last tests need it: it is made beside the first ones.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
  # A session of its own, so that all of it can be ended. If it fails, the lab's tests try once more and say why.
  PYTHONPATH=tests setsid nice .venv/bin/python -m lab &
  trap 'kill -- -'$!' 2>/dev/null || true' EXIT
fi
scripts/lint.sh
scripts/go.sh test -C guest_agent ./...
.venv/bin/pytest "$@"
