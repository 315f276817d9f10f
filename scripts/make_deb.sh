#!/usr/bin/env bash
# Builds ingle_VERSION_ARCH.deb: the files of a system install, and below /usr/lib/ingle the wheel with its dependencies,
# each checked against constraints.txt. The same commit makes the same package.
#   scripts/make_deb.sh [DIRECTORY [WHEEL]]     into build/; WHEEL: when there is one already
set -euo pipefail
into=$(realpath "${1:-$(dirname "$0")/../build}") wheel=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."
umask 022
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
PATH="$PWD/.venv/bin:$PATH"
export SOURCE_DATE_EPOCH PATH

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ -z "$wheel" ]; then
  python -m hatchling build --target wheel --directory "$scratch/wheel" >/dev/null
  wheel=$(echo "$scratch"/wheel/*.whl)
fi

tree=$scratch/tree
site_packages=$tree/usr/lib/ingle/lib/$(python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')/site-packages
uv pip install --quiet --target "$site_packages" --python "$(command -v python)" --link-mode copy --no-build \
  --require-hashes --constraints constraints.txt \
  "ingle[cli,server] @ file://$wheel#sha256=$(sha256sum "$wheel" | cut -d' ' -f1)"
# What says where it was built, programs of dependencies, and the manual page, which has a place of its own.
(cd "$site_packages" && rm -rf bin share .lock ./*.dist-info/{RECORD,direct_url.json,uv_cache.json})
# Never checked against its source, thus never written anew: root's programs leave no file that dpkg doesn't know.
python -m compileall -q -s "$tree" -p / --invalidation-mode unchecked-hash "$site_packages"

architecture=$(dpkg --print-architecture)
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' api_server/ingle/version.py)+git$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)
python scripts/deb_files.py "$tree" "$version" "$architecture" "$(git log -1 --format='%an <%ae>')"
find "$site_packages" -name '*.py' -exec chmod a-x {} +
chmod -R u=rwX,go=rX "$tree"
mkdir -p "$into"
rm -f "$into"/ingle_*.deb
# A fifth larger than by xz, in a twentieth of the time.
dpkg-deb --build -Zzstd -z9 --root-owner-group "$tree" "$into/ingle_${version}_$architecture.deb"
