"""Installing ingle as a service of the whole machine, looking at it, and removing it.

Every step can be done again: an install that failed half-way is mended by the next one."""

import fcntl
import grp
import os
import pwd
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from ingle.cli.client import connect_to
from ingle.cli.errors import CliError, failed
from ingle.cli.system import code
from ingle.cli.system.files import (
    BY_PACKAGE,
    COMMAND,
    DEVICES_UNIT,
    PACKAGED,
    POLICY,
    UNITS,
    Condition,
    Layout,
    ManagedFile,
    default_policy,
    former_files,
    installed_layout,
    managed_files,
    replace_file,
)
from ingle.cli.system.manager import Systemd, UnitState
from ingle.cli.system.pools import Pools, check_unused, choose_pools
from ingle.helper.v1.helper_pb2 import ReconcileRequest, ReconcileResponse

_FICLONE = 0x40049409  # linux/fs.h

USER = "ingle"
ADMINS = "ingle-admin"
HOME = Path("/var/lib/ingle")
RUNTIME = Path("/run/ingle")
CONFIGURATION = Path("/etc/ingle")
HELPERS: Mapping[str, Path] = {
    "ingle-helper.service": Path("/run/ingle-helper"),
    DEVICES_UNIT: Path("/run/ingle-helper-dm"),
}
"""Units of root helpers, and where they listen."""

NODES = Path("/dev/ingle")
"""Where VMs' disks by device-mapper are, as block devices."""

DIRECTORIES = (HOME, Path("/var/cache/ingle"), RUNTIME, CONFIGURATION)
"""What --purge removes."""


@dataclass(frozen=True)
class FoundFile:
    """A file of the install, and how it is found."""

    file: ManagedFile
    condition: Condition


@dataclass(frozen=True)
class Installed:
    """A system install as it is. `prefix` is the environment its code is in, `layout` tells who installed it."""

    layout: Layout
    prefix: Path
    group: str
    units: tuple[UnitState, ...]
    files: tuple[FoundFile, ...]

    @property
    def by_package(self) -> bool:
        """Whether it is the Debian package's."""
        return self.layout is BY_PACKAGE

    @property
    def drift(self) -> tuple[FoundFile, ...]:
        """Files that are not as an install by this version would write them."""
        return tuple(found for found in self.files if found.condition is not Condition.CURRENT)

    @property
    def healthy(self) -> bool:
        """Whether everything runs and nothing has drifted."""
        return not self.drift and all(unit.active == "active" for unit in self.units)


class System:
    """The system install of this machine."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd

    def install(self, group: str, say: Callable[[str], None], ip_pools: Sequence[str] = ()) -> bool:
        """Install, or mend what is installed; whether anything had to change. The pools of addresses that are there
        stay, unless `ip_pools` says otherwise.

        Raises CliError before the first change when something is there that is not ours, when the code can be changed
        by others than root, or a pool overlaps what the host has."""
        _leave_to_apt("installs", "ingle system status")
        self._require_root("install")
        self._systemd.require()
        prefix = code.prefix()
        units = needed_units()
        files = managed_files(prefix, group, units)
        self._refuse_foreign(managed_files(prefix, group), prefix)
        policy = planned_policy(prefix, ip_pools)
        changed = self._write(files, say)
        _remove(former_files(), say)
        sysusers, tmpfiles = (file.path for file in files[:2])
        self._systemd.make_accounts(sysusers)
        _check_group(group)
        self._systemd.make_directories(tmpfiles)
        changed |= policy.write(say)
        changed |= self._link_command(prefix, say)
        self._systemd.reload()
        self._systemd.enable(units)
        stopped = [unit for unit in units if self._systemd.state(unit).active != "active"]
        for unit in units if changed else stopped:
            say(f"starting {unit}")
            self._systemd.restart([unit])
        if changed:
            self._systemd.restart_if_active("systemd-resolved.service")
        return changed or bool(stopped)

    def upgrade(self, say: Callable[[str], None]) -> None:
        """Write the files as this version has them, and restart; VMs run on."""
        _leave_to_apt("upgrades", "sudo apt install ./ingle_VERSION_ARCH.deb")
        self._require_root("upgrade")
        installed = self.installed()
        if not self.install(installed.group, say):
            self.restart(say)

    def restart(self, say: Callable[[str], None], ip_pools: Sequence[str] = ()) -> None:
        """Restart all units; VMs run on. With `ip_pools` they have other addresses afterwards, and none may run."""
        self._require_root("restart")
        installed = self.installed()
        if ip_pools:
            planned_policy(installed.prefix, ip_pools).write(say)
        self._systemd.restart([unit.unit for unit in installed.units])

    def installed(self) -> Installed:
        """What is there. Raises CliError when nothing is."""
        layout = installed_layout()
        try:
            prefix = PACKAGED if layout is BY_PACKAGE else COMMAND.readlink().parents[1]
            group = grp.getgrgid(RUNTIME.stat().st_gid).gr_name
        except (OSError, KeyError) as error:
            raise failed("WRONG_STATE", "ingle is not installed on this system", "sudo ingle system install") from error
        # The package brings the one for disks to machines, too, that don't take it.
        states = [self._systemd.state(unit) for unit in UNITS]
        states = [state for state in states if state.unit != DEVICES_UNIT or state.enabled == "enabled"]
        files = managed_files(prefix, group, [state.unit for state in states], layout)
        return Installed(
            layout, prefix, group, tuple(states), tuple(FoundFile(file, file.condition()) for file in files)
        )

    def uninstall(self, say: Callable[[str], None], *, purge: bool) -> None:
        """Stop everything, VMs too, and remove what an install made; with `purge` also VMs, images and accounts.

        What belongs to somebody else stays, and is no error: half an install must be removable as well."""
        _leave_to_apt("removes", f"sudo apt {'purge' if purge else 'remove'} ingle")
        self._require_root("uninstall")
        self._systemd.require()
        self.end(say)
        for unit in UNITS:
            self._systemd.disable(unit)
        _remove((*managed_files(Path("/"), "root"), *former_files()), say)
        if self._command_is_ours:
            say(f"removing {COMMAND}")
            COMMAND.unlink()
        self._systemd.reload()
        self._systemd.restart_if_active("systemd-resolved.service")
        if purge:
            for directory in DIRECTORIES:
                say(f"removing {directory}")
                shutil.rmtree(directory, ignore_errors=True)
            self._systemd.remove_accounts(USER, USER, ADMINS)

    def end(self, say: Callable[[str], None]) -> None:
        """Stop everything, VMs too, and remove what the helpers have made, until the next boot or start."""
        for unit in reversed(UNITS):  # the server and its VMs first; then nobody uses what the helpers have made
            if unit in HELPERS:
                self._clear(HELPERS[unit], say)
            self._systemd.stop(unit)
            self._systemd.kill_rest(unit)
        for directory in (RUNTIME, NODES, *HELPERS.values()):
            shutil.rmtree(directory, ignore_errors=True)

    def _clear(self, runtime: Path, say: Callable[[str], None]) -> None:
        """Have a helper remove everything that it has made. One that does not run can't, and need not be there."""
        try:
            with connect_to(runtime / "helper.sock") as helper:
                removed = helper.call(ReconcileRequest(), ReconcileResponse).removed
        except CliError as error:
            say(f"nothing is asked of {runtime.name}: {error}")
            return
        for thing in removed:
            say(f"removed {thing}")

    @property
    def _command_is_ours(self) -> bool:
        return COMMAND.is_symlink() and COMMAND.readlink().name == "ingle"

    def _require_root(self, verb: str) -> None:
        if os.geteuid() != 0:
            raise failed("WRONG_STATE", f"only root can {verb} system services", f"sudo ingle system {verb}")

    def _refuse_foreign(self, files: tuple[ManagedFile, ...], prefix: Path) -> None:
        foreign = [str(file.path) for file in files if file.condition() is Condition.FOREIGN]
        ours = prefix / "bin" / "ingle"
        if COMMAND.exists() and not self._command_is_ours:
            foreign.append(str(COMMAND))
        try:
            account = pwd.getpwnam(USER)
        except KeyError:
            account = None
        if account is not None and Path(account.pw_dir) != HOME:
            foreign.append(f"the user {USER} with home {account.pw_dir}")
        if foreign:
            raise failed(
                "WRONG_STATE",
                f"not made by `ingle system install`, so it is not overwritten: {', '.join(foreign)}",
                f"remove it first, if {ours} shall take its place",
            )

    def _write(self, files: tuple[ManagedFile, ...], say: Callable[[str], None]) -> bool:
        stale = [file for file in files if file.condition() is not Condition.CURRENT]
        for file in stale:
            say(f"writing {file.path}")
            file.write()
        return bool(stale)

    def _link_command(self, prefix: Path, say: Callable[[str], None]) -> bool:
        target = prefix / "bin" / "ingle"
        if COMMAND.is_symlink() and COMMAND.readlink() == target:
            return False
        say(f"linking {COMMAND} to {target}")
        fresh = COMMAND.with_name(".ingle.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(COMMAND)
        return True


def needed_units() -> tuple[str, ...]:
    """Those that this machine takes."""
    return UNITS if _takes_device_helper() else tuple(unit for unit in UNITS if unit != DEVICES_UNIT)


def _leave_to_apt(does: str, remedy: str) -> None:
    if installed_layout() is BY_PACKAGE:
        raise failed(
            "WRONG_STATE", f"ingle is installed here by its Debian package, so it is apt that {does} it", remedy
        )


def _takes_device_helper() -> bool:
    """Whether disks can't share blocks with their image by the file system's own means; found out by trying."""
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=HOME.parent) as image, TemporaryFile(dir=HOME.parent) as disk:
        image.write(bytes(4096))
        image.flush()
        try:
            fcntl.ioctl(disk, _FICLONE, image.fileno())
        except OSError:
            return True
        return False


def _remove(files: Iterable[ManagedFile], say: Callable[[str], None]) -> None:
    """Those that are ours."""
    for file in files:
        if file.condition() in {Condition.CURRENT, Condition.DIFFERENT}:
            say(f"removing {file.path}")
            file.path.unlink()


@dataclass(frozen=True)
class PlannedPolicy:
    """What the helper's policy will say, and the pools in it where they are new."""

    text: str
    pools: Pools | None

    def write(self, say: Callable[[str], None]) -> bool:
        """Put it in place, unless it is there; whether it was not."""
        if self.pools is None:
            return False
        say(f"writing {POLICY}")
        for why in self.pools.why:
            say(f"addresses of VMs: {why}")
        POLICY.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(POLICY, self.text)
        return True


def planned_policy(prefix: Path, ip_pools: Sequence[str] = ()) -> PlannedPolicy:
    """With pools that nothing of this host overlaps, where there is no policy yet or `ip_pools` asks for others.

    Raises CliError, also while VMs have addresses of those that are there."""
    there = POLICY.read_text() if POLICY.exists() else ""
    if there and not ip_pools:
        return PlannedPolicy(there, None)
    pools = choose_pools(prefix, ip_pools)
    text = pools.written_into(there or default_policy())
    if text == there:
        return PlannedPolicy(there, None)
    if there:
        check_unused(HELPERS["ingle-helper.service"] / "helper.sock")
    return PlannedPolicy(text, pools)


def _check_group(group: str) -> None:
    try:
        grp.getgrnam(group)
    except KeyError:
        raise failed("INVALID_ARGUMENT", f"there is no group {group!r} here", f"sudo groupadd {group}") from None
