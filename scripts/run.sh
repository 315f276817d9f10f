#!/usr/bin/env bash
# The first minute with ingle: a kernel and an image if there are none yet, then a microVM for one command.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/progress.sh
source scripts/progress.sh
ingle=.venv/bin/ingle

say "checking this machine"
if ! findings=$($ingle doctor); then
  printf '%s\n' "$findings" >&2
  exit 1
fi
say "kernel and image"
$ingle kernel pull debian
$ingle image pull debian:bookworm
say "booting a microVM"
exec $ingle vm run --rm --verbose -- sh -c 'cat /etc/os-release && uname -a'
