#!/usr/bin/env bash
# Boots one VM after the other and runs a command in each; every one must come up.
#   scripts/soak.sh [BOOTS]
set -euo pipefail
cd "$(dirname "$0")/.."
boots=${1:-50}
ingle=.venv/bin/ingle
slowest=0 failed=0
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

$ingle kernel pull debian
$ingle image pull debian:bookworm
for ((boot = 1; boot <= boots; boot++)); do
  started=${EPOCHREALTIME/./}
  if [ "$($ingle vm run --rm -- echo "boot $boot" 2>"$errors" </dev/null)" = "boot $boot" ]; then
    verdict=ok
  else
    verdict=FAIL
    failed=$((failed + 1))
  fi
  milliseconds=$(((${EPOCHREALTIME/./} - started) / 1000))
  if [ $milliseconds -gt $slowest ]; then slowest=$milliseconds; fi
  printf 'boot %*d of %d: %-4s %6d ms\n' ${#boots} "$boot" "$boots" "$verdict" "$milliseconds"
  if [ $verdict = FAIL ]; then sed 's/^/    /' "$errors"; fi
done
printf '%d of %d came up, the slowest in %d ms\n' $((boots - failed)) "$boots" $slowest
[ $failed -eq 0 ]
