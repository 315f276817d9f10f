"""The lab's initramfs: the agent and the units that run it, put on /run before systemd starts, so that the disk is the
same for every ingle."""

import stat
from pathlib import Path

from ingle.api_server.adapters.boot import cpio

AGENT_PORT = 1024

_UNITS = {
    "lab-grow.service": """
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Before=local-fs.target
[Service]
Type=oneshot
ExecStart=/sbin/resize2fs /dev/vda
""",
    "lab-agent.service": """
[Service]
ExecStart=/run/lab/ingle-agent --listen unix:/run/lab/agent.sock --token-file /run/lab/token
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=524288
Delegate=yes
""",
    "lab-door.socket": f"""
[Socket]
ListenStream={AGENT_PORT}
""",
    "lab-door.service": """
[Unit]
Requires=lab-agent.service
After=lab-agent.service
[Service]
ExecStart=/lib/systemd/systemd-socket-proxyd /run/lab/agent.sock
""",
}
_WANTED = {
    "local-fs.target": ("lab-grow.service",),
    "multi-user.target": ("lab-agent.service",),
    "sockets.target": ("lab-door.socket",),
}


def archive(agent: Path, token: bytes, modules: Path, busybox: Path) -> bytes:
    """A cpio archive with init.sh as /init."""
    units = "brought/systemd/system"
    directories = (
        "bin",
        "brought",
        "brought/lab",
        "brought/systemd",
        units,
        "dev",
        "modules",
        "newroot",
        "proc",
        "sys",
    )
    entries = [cpio.directory(name) for name in directories]
    entries += [
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", busybox.read_bytes(), 0o755),
        cpio.file("init", (Path(__file__).parent / "init.sh").read_bytes(), 0o755),
        cpio.file("brought/lab/ingle-agent", agent.read_bytes(), 0o755),
        cpio.file("brought/lab/token", token, 0o600),
    ]
    entries += [cpio.file(f"modules/{module.name}", module.read_bytes()) for module in sorted(modules.iterdir())]
    entries += [cpio.file(f"{units}/{name}", text.lstrip().encode()) for name, text in _UNITS.items()]
    for target, names in _WANTED.items():
        entries.append(cpio.directory(f"{units}/{target}.wants"))
        entries += [_link(f"{units}/{target}.wants/{name}", f"../{name}") for name in names]
    return cpio.archive(entries)


def _link(name: str, target: str) -> cpio.Entry:
    return cpio.Entry(name, stat.S_IFLNK | 0o777, target.encode())
