#!/usr/bin/env bash
# Drives the installed command line end to end, against a server of its own in directories of its own, and measures how
# much of the server and the command line that ran.
#   scripts/smoke.sh [SCENARIO...]     all, or the named ones of scripts/smoke_scenarios.sh
#   scripts/smoke.sh --system          as root, against the system install that this machine has; without coverage
#   scripts/smoke.sh --html            the last run's coverage as pages
#   scripts/smoke.sh --clean           remove what runs left
# shellcheck disable=SC2317 # the trap calls its functions
set -uo pipefail
cd "$(dirname "$0")/.." || exit
repository=$PWD
out=$repository/build/smoke
export COVERAGE_FILE=$out/coverage
coverage=$repository/.venv/bin/coverage

case "${1:-}" in
  --html)
    "$coverage" html --quiet --directory "$out/html" && echo "$out/html/index.html"
    exit
    ;;
  --clean)
    if [ -e "$out/home" ]; then rm -rf "$(cat "$out/home")"; fi
    rm -rf "$out"
    exit
    ;;
esac

system=
if [ "${1:-}" = --system ]; then
  system=yes
  shift
fi

rm -rf "$out"
mkdir -p "$out/logs"
# In /tmp, and short: a socket's path has at most 107 bytes.
home=$(mktemp -d /tmp/ingle-smoke.XXXXXX)
echo "$home" >"$out/home"
mkdir -m 0700 "$home/run" "$home/work"
for name in $(compgen -e INGLE_); do unset "$name"; done
export HOME=$home XDG_CONFIG_HOME=$home/config XDG_STATE_HOME=$home/state XDG_CACHE_HOME=$home/cache
export XDG_RUNTIME_DIR=$home/run INGLE_MODE=${system:+system}
if [ -n "$system" ]; then
  PATH=$(dirname "$(readlink -f "$(command -v ingle)")"):$PATH
else
  INGLE_MODE=user
  # Seen by a hook that coverage installs into .venv, so every Python started from there measures itself.
  export COVERAGE_PROCESS_START=$repository/pyproject.toml
  PATH=$repository/.venv/bin:$PATH
fi
failed=0

# shellcheck source=scripts/smoke_scenarios.sh
source scripts/smoke_scenarios.sh

# Those that name its directories, and those that have them in their environment; not the ones that look.
processes_of_this_run() (
  mark=XDG_STATE_HOME=$XDG_STATE_HOME
  unset XDG_STATE_HOME
  {
    pgrep --full "$home"
    grep --files-with-matches --null-data --no-messages --line-regexp --fixed-strings "$mark" /proc/[0-9]*/environ
  } | tr -dc '0-9\n' | sort -u
)

end() {
  local left
  left=$(processes_of_this_run)
  # shellcheck disable=SC2086 # one word a process
  if [ -n "$left" ]; then kill -KILL $left 2>/dev/null; fi
  rm -rf "$home" "${out:?}/home"
}
trap end EXIT
trap 'exit 130' INT TERM

run_scenario() {
  local name=$1 log=$out/logs/$1 started=${EPOCHREALTIME/./} status milliseconds verdict=ok
  mkdir "$home/work/$name"
  (cd "$home/work/$name" && set -ex && "$name") >"$log" 2>&1 </dev/null
  status=$?
  milliseconds=$(((${EPOCHREALTIME/./} - started) / 1000))
  if [ $status -ne 0 ]; then verdict=FAIL failed=1; fi
  printf '%-4s %6d ms  %s\n' "$verdict" "$milliseconds" "${name//_/ }"
  if [ $status -ne 0 ]; then tail -n 15 "$log" | sed 's/^/     /'; fi
}

report() {
  "$coverage" combine --quiet "$out" && "$coverage" json --quiet -o "$out/report.json" &&
    .venv/bin/python scripts/coverage_by_package.py "$out/report.json"
}

if [ -n "$system" ]; then
  if [ $# -eq 0 ]; then set -- "${system_scenarios[@]}"; fi
  for scenario in "$@"; do run_scenario "$scenario"; done
  exit "$failed"
fi
if [ $# -gt 0 ]; then scenarios=(pull_a_kernel pull_an_image "$@" nothing_is_left); fi
for scenario in "${scenarios[@]}"; do run_scenario "$scenario"; done
# Nothing to stop unless a scenario failed; a server that is stopped has its coverage written.
ingle server stop >"$out/logs/server_stop" 2>&1
cp "$XDG_STATE_HOME/ingle/server.log" "$out/logs/server.log"
unset COVERAGE_PROCESS_START
report || failed=1
exit "$failed"
