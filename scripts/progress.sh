# To be sourced: what the other scripts tell about their progress.
# shellcheck shell=bash

# say TEXT...: something longer begins.
say() { printf '==> %s\n' "$*"; }

# progress: shows the lines of its input, on a terminal one after the other in the same place.
progress() {
  if [ -t 1 ]; then
    local line
    while IFS= read -r line; do printf '\r\e[K    %.70s' "$line"; done
    printf '\r\e[K'
  else
    sed 's/^/    /'
  fi
}
