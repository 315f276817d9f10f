#!/usr/bin/env bash
# Feeds every fuzz target for FUZZTIME (10m), one after the other. What breaks one in Go is kept, made small, in its
# testdata/fuzz, where `go test` tries it ever after. The targets in Python are the tests named test_fuzz_*.
#   [FUZZTIME=10m] scripts/fuzz.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${FUZZTIME:-10m}
wanted=" $* "
failed=0
TMPDIR=$(mktemp -d) # workers are stopped in the middle of what they do
export TMPDIR
trap 'chmod -R u+rwx "$TMPDIR"; rm -rf "$TMPDIR"' EXIT

while IFS=: read -r file target; do
  [[ "$wanted" == "  " || "$wanted" == *" $target "* ]] || continue
  echo "$target, $fuzztime"
  # -run: the tests proper would be in the way of the process that looks after the fuzzing ones.
  module=${file%%/*}
  nice -n 15 scripts/go.sh test -C "$module" -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" -fuzzminimizetime 100x \
    -parallel 1 "./$(dirname "${file#*/}")" || failed=1
done < <(grep -rhoHE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' guest_agent/internal image_puller/internal | sed 's/func //')
while IFS=: read -r file target; do
  [[ "$wanted" == "  " || "$wanted" == *" $target "* ]] || continue
  echo "$target, $fuzztime"
  FUZZTIME=$fuzztime nice -n 15 .venv/bin/pytest -q -o faulthandler_timeout=0 "$file::$target" || failed=1
done < <(grep -rHoE --include='test_*.py' '^def test_fuzz_[a-z0-9_]*' tests/unit | sed 's/def //')
exit "$failed"
