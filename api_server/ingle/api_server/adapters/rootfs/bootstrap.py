"""A minimal Debian, made by mmdebstrap from the mirrors that the host's own apt uses."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ingle.api_server.host import rootlike
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import ToolFailed
from ingle.api_server.ports.sources import CatalogEntry, Report

SUITES: Mapping[str, str] = {"debian:bookworm": "bookworm", "debian:trixie": "trixie"}

CATALOG = (
    CatalogEntry("debian:bookworm", "Debian 12, minimal, made from packages on this host"),
    CatalogEntry("debian:trixie", "Debian 13, minimal, made from packages on this host"),
)

_PACKAGES = ("ca-certificates", "curl", "iproute2", "iputils-ping", "less", "nano", "procps")

_MIRROR = "http://deb.debian.org/debian"
_SECURITY_MIRROR = "http://deb.debian.org/debian-security"

# What mmdebstrap copies from the host for its own use; in the guest, the agent writes them.
_FORGET_HOST = 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"'


async def make_archive(tools: Tools, suite: str, archive: Path, scratch: Path, report: Report) -> None:
    """Write a tar of Debian `suite`; all that happens on the way, happens in `scratch`.

    As root, and as a user who may map ids (/etc/subuid), in a namespace of its own, so that neither mounts nor
    processes outlive it; as any other user through fakechroot. Raises HostProblem, ToolFailed."""

    def on_line(line: str) -> None:
        # "I: installing packages..."; the other lines are details.
        if line.startswith("I: ") and line.endswith("..."):
            report(line.removeprefix("I: ").removesuffix("..."), None)

    prefix = await rootlike.namespace(tools)
    command = [
        *((*prefix, "--", "mmdebstrap", "--mode=root") if prefix else (*_FAKE, "mmdebstrap", "--mode=fakechroot")),
        "--variant=minbase",
        f"--include={','.join(_PACKAGES)}",
        # Device nodes: the guest's kernel makes its own.
        "--skip=output/dev",
        f"--customize-hook={_FORGET_HOST}",
        "--format=tar",
        suite,
        str(archive),
        *await _sources(tools, suite),
    ]
    await tools.run(command, env={"TMPDIR": str(scratch), **await _proxies(tools)}, on_line=on_line)


_FAKE = ("fakechroot", "fakeroot")


async def _sources(tools: Tools, suite: str) -> list[str]:
    """Lines for sources.list: the host's mirrors where it has any of Debian's, which need not be of the same suite."""
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    try:
        listed = (await tools.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])).decode()
    except ToolFailed:
        listed = ""  # an apt without lists knows no mirrors; mmdebstrap doesn't need it to
    mirror = _mirror(listed, "Debian") or _MIRROR
    security = _mirror(listed, "Debian-Security") or _SECURITY_MIRROR
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
        value = shown.strip()
        if value and variable not in os.environ:
            proxies[variable] = value
    return proxies
