#!/usr/bin/env bash
# Makes .venv, or brings it up to date: the packages of constraints.txt, each checked against its hashes, and ingle
# itself, editable. PYTHON names the interpreter; otherwise it is python3, 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/progress.sh
source scripts/progress.sh
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "$python is not Python 3.11 or newer; say which one is: make PYTHON=/usr/bin/python3.12 ..." >&2
  exit 1
fi
if ! .venv/bin/python -c '' 2>/dev/null; then
  say "making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
fi
say "installing $(grep -c '^[a-z]' constraints.txt) Python packages into .venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
.venv/bin/pip install --progress-bar off --require-hashes -r constraints.txt |
  sed -un -e 's/^Collecting \([^ ]*\).*/\1/p' -e 's/^Installing collected.*/unpacking/p' | progress
.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
# pip has compiled the packages. Ours would be, each time anew, where Python is told to write no bytecode.
.venv/bin/python -m compileall -q api_server cli host_helper proto/gen
touch .venv/.up-to-date
