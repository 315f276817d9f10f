"""A minimal Debian, made by mmdebstrap from the mirrors that the host's own apt uses."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.host import rootlike
from ingle.api_server.host.tool import Tools, require
from ingle.api_server.ports.sources import CatalogEntry, Report

_PACKAGES = ("ca-certificates", "curl", "iproute2", "iputils-ping", "kmod", "less", "nano", "procps")
_BUILDAH = (*_PACKAGES, "buildah")
_SYSTEMD = (*_PACKAGES, "dbus", "systemd-sysv")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of: a suite of Debian, and packages on top of the essential ones."""

    suite: str
    packages: tuple[str, ...] = _PACKAGES


RECIPES: Mapping[str, Recipe] = {
    "debian:bookworm": Recipe("bookworm"),
    "debian:bookworm-buildah": Recipe("bookworm", _BUILDAH),
    "debian:bookworm-systemd": Recipe("bookworm", _SYSTEMD),
    "debian:trixie": Recipe("trixie"),
    "debian:trixie-systemd": Recipe("trixie", _SYSTEMD),
}

CATALOG = (
    CatalogEntry("debian:bookworm", "Debian 12, minimal, made from packages on this host"),
    CatalogEntry("debian:bookworm-buildah", "the same with buildah: what ingle image build builds in"),
    CatalogEntry("debian:bookworm-systemd", "the same with systemd: for --init image"),
    CatalogEntry("debian:trixie", "Debian 13, minimal, made from packages on this host"),
    CatalogEntry("debian:trixie-systemd", "the same with systemd: for --init image"),
)

_FAKE = ("fakechroot", "fakeroot")

# A service of systemd's with RestrictSUIDSGID= can't make a file set-id. fakeroot remembers that it shall be, but the
# file keeps the mode it was made with, which with dpkg is 0: then it can't be opened again. So dpkg is told other modes
# for essential packages' files, which are known when they have been extracted; does not open the rest again, for the
# fsync that a tree as short-lived as this needs not; and at the end all are as they should be.
_TELL_OTHER_MODES = """set -e; cd "$1"
find . -xdev -type f -perm /6000 -printf '%m /%P\\n' >.set-id
find . -xdev -type f -perm /6000 -printf '#%U #%G 755 /%P\\n' >var/lib/dpkg/statoverride"""
_MAKE_SET_ID = """set -e; cd "$1"
env --unset=LD_PRELOAD find . -xdev -type f ! -perm -u+r -exec chmod u+r {} +
while read -r mode path; do
  chroot . dpkg-statoverride --quiet --remove "$path"
  chmod "$mode" ".$path"
done <.set-id
find var/lib/dpkg/statoverride -empty -delete
rm -f .set-id var/lib/dpkg/statoverride-old etc/dpkg/dpkg.cfg.d/99mmdebstrap"""
_WITHOUT_SET_ID = (
    "--dpkgopt=force-unsafe-io",
    f"--extract-hook={_TELL_OTHER_MODES}",
    f"--customize-hook={_MAKE_SET_ID}",
)

# What mmdebstrap copies from the host for its own use; in the guest, the agent writes them.
_FORGET_HOST = 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"'


async def make_archive(tools: Tools, recipe: Recipe, archive: Path, scratch: Path, report: Report) -> None:
    """Write a tar of a Debian; all that happens on the way, happens in `scratch`.

    As root, and as a user who may map ids (/etc/subuid), in a namespace of its own, so that neither mounts nor
    processes outlive it; as any other user through fakechroot. Raises HostProblem, ToolFailed."""

    def on_line(line: str) -> None:
        # "I: installing packages..."; the other lines are details.
        if line.startswith("I: ") and line.endswith("..."):
            report(line.removeprefix("I: ").removesuffix("..."), None)

    mmdebstrap = require("mmdebstrap")
    prefix = await rootlike.namespace(tools)
    command = [
        *(
            (*prefix, "--", mmdebstrap, "--mode=root")
            if prefix
            else (*_FAKE, mmdebstrap, "--mode=fakechroot", *_WITHOUT_SET_ID)
        ),
        "--variant=minbase",
        f"--include={','.join(recipe.packages)}",
        # Device nodes: the guest's kernel makes its own.
        "--skip=output/dev",
        f"--customize-hook={_FORGET_HOST}",
        "--format=tar",
        recipe.suite,
        str(archive),
        *await _sources(tools, recipe.suite),
    ]
    await tools.run(command, env={"TMPDIR": str(scratch), **await _proxies(tools)}, on_line=on_line)


async def _sources(tools: Tools, suite: str) -> list[str]:
    """Lines for sources.list with the host's mirrors, which need not be of the same suite. None, so that mmdebstrap
    takes Debian's own, when the host has no mirror of Debian or none of its security updates."""
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    listed = (await tools.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])).decode()
    mirror, security = _mirror(listed, "Debian"), _mirror(listed, "Debian-Security")
    if mirror is None or security is None:
        return []
    return [
        f"deb {mirror} {suite} main",
        f"deb {mirror} {suite}-updates main",
        f"deb {security} {suite}-security main",
    ]


def _mirror(listed: str, label: str) -> str | None:
    # What the guest can't reach by itself (file:, cdrom:, mirror+file:) is no mirror for it.
    match = re.search(rf"^Debian\|{label}\|(https?://\S+?)/?$", listed, re.MULTILINE)
    return None if match is None else match[1]


async def _proxies(tools: Tools) -> dict[str, str]:
    """The proxies that the host's apt is told to use, as environment variables, which leave no trace in the image."""
    proxies = {}
    for scheme in ("http", "https"):
        variable = f"{scheme}_proxy"
        shown = (await tools.run(["apt-config", "dump", "--format", "%v%n", f"Acquire::{scheme}::Proxy"])).decode()
        # The first line is the general one; those for single hosts follow.
        proxy = shown.partition("\n")[0]
        if proxy and variable not in os.environ:
            proxies[variable] = proxy
    return proxies
