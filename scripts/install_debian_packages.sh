#!/usr/bin/env bash
# Installs the Debian packages listed in the given files, those that are missing only: when all are there, apt is not
# even asked. Package lists are brought up to date before, and also when there are none, because ingle itself gets
# kernels through apt.
#   scripts/install_debian_packages.sh LIST...
set -euo pipefail

# shellcheck source=scripts/progress.sh
source "$(dirname "$0")/progress.sh"

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

have_package_lists() {
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null
}

if ! command -v dpkg-query >/dev/null; then
  echo "This is not Debian, nor like it: install yourself what $* list, then go on with 'make venv'." >&2
  exit 1
fi

mapfile -t wanted < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]//g' "$@")
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p' || true)
mapfile -t missing < <(printf '%s\n' "${wanted[@]}" | grep -vxF "$installed" || true)

if [ ${#missing[@]} -gt 0 ]; then
  say "installing Debian packages: ${missing[*]}"
  apt_get update | progress
  apt_get install -y --no-install-recommends "${missing[@]}" | progress
elif ! have_package_lists; then
  say "fetching Debian's package lists"
  apt_get update | progress
fi
