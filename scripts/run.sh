#!/usr/bin/env bash
# The first minute with ingle: a kernel, an image, and the memory of a guest that has booted, where they are missing; then
# a microVM for one command, which begins with that.
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
say "kernel, image, and a guest that has booted"
$ingle image warm --verbose >/dev/null
say "starting a microVM"
exec $ingle vm run --rm --verbose -- sh -c 'cat /etc/os-release && uname -a'
