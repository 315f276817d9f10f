"""The files of a system install: a pure function of where the code is, who may use it, and who puts them there.

Each begins with a line that says whose it is. What is at its place without that line was put there by somebody else,
and is never overwritten nor removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files as resources
from pathlib import Path

DEVICES_UNIT = "ingle-helper-dm.service"
"""For disks as device-mapper snapshots: where the file system shares blocks, nobody needs it."""

UNITS = ("ingle-helper.service", DEVICES_UNIT, "ingle.service")
"""In the order in which they start."""

_PLACES: Mapping[str, str] = {
    "sysusers.conf": "sysusers.d/ingle.conf",
    "tmpfiles.conf": "tmpfiles.d/ingle.conf",
    "resolved.conf": "systemd/resolved.conf.d/ingle.conf",
}


@dataclass(frozen=True)
class Layout:
    """Whose the files are: `mark` is the first line of each, `directory` the one that systemd looks into for them, and
    `mending` the command that puts them there again."""

    mark: str
    directory: Path
    mending: str

    def unit(self, unit: str) -> Path:
        """Where a unit is."""
        return self.directory / "systemd/system" / unit


BY_COMMAND = Layout(
    "# Written by `ingle system install`, and again by the next one: change it by a drop-in of your own.\n",
    Path("/etc"),
    "sudo ingle system install",
)
BY_PACKAGE = Layout(
    "# From the Debian package ingle: change it by a drop-in of your own.\n",
    Path("/usr/lib"),
    "sudo apt reinstall ./ingle_VERSION_ARCH.deb",
)

POLICY = Path("/etc/ingle/helper.toml")
"""What the root helper may do. An operator's to change: written when it is missing, and kept."""

COMMAND = Path("/usr/local/bin/ingle")
"""A link to the command of the root-owned code."""

PACKAGED = Path("/usr/lib/ingle")
"""The virtual environment in the Debian package."""


class Condition(Enum):
    """How a file of ours is found."""

    MISSING = "missing"
    CURRENT = "current"
    DIFFERENT = "different"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class ManagedFile:
    """A file of the install: mode 0644, root's."""

    path: Path
    content: str
    layout: Layout

    def condition(self) -> Condition:
        """How it is found now. Raises OSError when it can't be read."""
        try:
            found = self.path.read_text(errors="replace")
        except FileNotFoundError:
            return Condition.MISSING
        except IsADirectoryError:
            return Condition.FOREIGN
        if found == self.content:
            return Condition.CURRENT
        return Condition.DIFFERENT if found.startswith(self.layout.mark) else Condition.FOREIGN

    def write(self) -> None:
        """Put it in place."""
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(self.path, self.content)


def replace_file(path: Path, content: str) -> None:
    """As a whole, mode 0644: a reader sees the old one or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(content)
    fresh.chmod(0o644)
    fresh.replace(path)


def managed_files(
    prefix: Path, group: str, units: Sequence[str] = UNITS, layout: Layout = BY_COMMAND, root: Path = Path("/")
) -> tuple[ManagedFile, ...]:
    """All of them, for code in the virtual environment `prefix` and callers in `group`, below `root`; units last."""
    values = {"PREFIX": str(prefix), "GROUP": group}
    places = {name: layout.directory / place for name, place in _PLACES.items()}
    places |= {unit: layout.unit(unit) for unit in units}
    return tuple(
        ManagedFile(root / place.relative_to("/"), layout.mark + _fill(_template(name), values), layout)
        for name, place in places.items()
    )


def former_files(root: Path = Path("/")) -> tuple[ManagedFile, ...]:
    """What an earlier version installed, and what is in the way of today's: it made the host forward everything."""
    place = BY_COMMAND.directory / "sysctl.d/60-ingle.conf"
    return (ManagedFile(root / place.relative_to("/"), BY_COMMAND.mark, BY_COMMAND),)


def installed_layout() -> Layout:
    """That of this machine's install: the Debian package's where that is installed."""
    return BY_PACKAGE if BY_PACKAGE.unit(UNITS[-1]).exists() else BY_COMMAND


def default_policy() -> str:
    """Of the helper, for when there is none."""
    return _template("helper.toml")


def _fill(template: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def _template(name: str) -> str:
    """From the wheel, or from deploy/ of a checkout."""
    package = resources("ingle.cli.system")
    packed = package / "deploy" / name
    return (packed if packed.is_file() else Path(str(package)).parents[3] / "deploy" / name).read_text()
