"""Debian's kernels, through the host's own apt: its mirrors, proxies and signatures."""

import re
from pathlib import Path

from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import HostProblem, Reason, ToolFailed
from ingle.api_server.ports.sources import Report

# As in "Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)".
_DEPENDS = re.compile(r"^Depends:.*?\b(linux-image-[0-9][a-z0-9.+-]*)", re.MULTILINE)

# As apt writes to APT::Status-Fd: "dlstatus:1:42.5:Retrieving file 1 of 1".
_STATUS = re.compile(r"dlstatus:[^:]*:([0-9.]+):")


async def download_kernel(tools: Tools, meta_package: str, into: Path, report: Report) -> Path:
    """Download the package that a meta package stands for, and unpack it; answers the unpacked tree.

    Works for any user. Raises HostProblem when apt has no package lists, ToolFailed."""
    package = await _kernel_package(tools, meta_package)
    report(f"downloading {package}", None)

    def on_line(line: str) -> None:
        if match := _STATUS.match(line):
            report(f"downloading {package}", min(float(match[1]) / 100, 1.0))

    try:
        # apt would otherwise complain, as root, that its own user can't write to a private directory.
        options = ("-o", "APT::Sandbox::User=root", "-o", "APT::Status-Fd=2")
        await tools.run(["apt-get", *options, "download", package], directory=into, on_line=on_line)
    except ToolFailed as error:
        # Mostly lists so old that the mirror has a newer version only.
        raise ToolFailed(error.reason, error.message, "sudo apt-get update") from error
    archive = _only(into, "*.deb")
    report(f"unpacking {package}", None)
    tree = into / "package"
    await tools.run(["dpkg-deb", "--extract", archive, tree])
    archive.unlink()
    return tree


async def _kernel_package(tools: Tools, meta_package: str) -> str:
    try:
        shown = await tools.run(["apt-cache", "show", "--no-all-versions", meta_package])
    except ToolFailed as error:
        raise HostProblem(
            Reason.DEPENDENCY_MISSING,
            f"apt knows no package {meta_package}: its package lists are missing or not those of Debian",
            "sudo apt-get update",
        ) from error
    match = _DEPENDS.search(shown.decode())
    if match is None:
        raise ToolFailed(Reason.TOOL_FAILED, f"the package {meta_package} depends on no kernel", "sudo apt-get update")
    return match[1]


def _only(directory: Path, pattern: str) -> Path:
    (path,) = directory.glob(pattern)
    return path
