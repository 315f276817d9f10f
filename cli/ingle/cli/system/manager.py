"""What is asked of systemd and of the account database."""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.cli.errors import failed


@dataclass(frozen=True)
class UnitState:
    """As `systemctl show` tells it: e.g. loaded, active, running, enabled."""

    unit: str
    loaded: str
    active: str
    sub: str
    enabled: str


class Systemd:
    """The system's service manager."""

    def require(self) -> None:
        """Raise CliError where systemd does not run the machine."""
        if not Path("/run/systemd/system").is_dir():
            raise failed(
                "DEPENDENCY_MISSING",
                "systemd does not run this machine, and a system install consists of its units",
                "without it every user has a server of their own: ingle vm run -- true",
            )

    def make_accounts(self, configuration: Path) -> None:
        """Users and groups of a sysusers.d(5) file."""
        _run("systemd-sysusers", str(configuration))

    def make_directories(self, configuration: Path) -> None:
        """Those of a tmpfiles.d(5) file."""
        _run("systemd-tmpfiles", "--create", str(configuration))

    def reload(self) -> None:
        """Read all units anew."""
        _run("systemctl", "daemon-reload")

    def enable(self, units: Sequence[str]) -> None:
        """Start them at every boot."""
        _run("systemctl", "enable", "--quiet", *units)

    def restart(self, units: Sequence[str]) -> None:
        """Stop and start; answers when they are ready."""
        _run("systemctl", "restart", *units)

    def restart_if_active(self, unit: str) -> None:
        """For a service that others run: it reads its configuration anew. One that is not there is fine."""
        if self.state(unit).active == "active":
            _run("systemctl", "restart", unit)

    def stop(self, unit: str) -> None:
        """Stop it. One that is not there is fine."""
        if self.state(unit).loaded == "loaded":
            _run("systemctl", "stop", unit)

    def disable(self, unit: str) -> None:
        """Start it at no boot. One that is not there is fine."""
        if self.state(unit).loaded == "loaded":
            _run("systemctl", "disable", "--quiet", unit)

    def kill_rest(self, unit: str) -> None:
        """SIGKILL for whatever a stopped unit has left running. None is fine."""
        subprocess.run(["systemctl", "kill", "--signal=KILL", unit], capture_output=True, check=False)

    def state(self, unit: str) -> UnitState:
        """How a unit is."""
        names = ("LoadState", "ActiveState", "SubState", "UnitFileState")
        said = _run("systemctl", "show", "--property", ",".join(names), unit)
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        return UnitState(unit, *(found.get(name, "") for name in names))

    def properties(self, unit: str, names: Iterable[str]) -> str:
        """As `systemctl show` prints them: a line for each, or more for those that have many values."""
        return _run("systemctl", "show", "--property", ",".join(names), unit)

    def call_groups(self) -> str:
        """The names of systemd's for groups of system calls, as hardening.call_groups understands them."""
        return _run("systemd-analyze", "--no-pager", "syscall-filter")

    def remove_accounts(self, user: str, *groups: str) -> None:
        """The user, and the groups unless they went with it."""
        for argv in (["userdel", user], *(["groupdel", group] for group in groups)):
            subprocess.run(argv, capture_output=True, check=False)


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise failed("DEPENDENCY_MISSING", f"{argv[0]} is not installed", "apt-get install systemd") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise failed("TOOL_FAILED", f"{' '.join(argv)}: {said}", "journalctl --unit ingle --lines 20")
    return done.stdout
