"""Whether a unit has the rights that its file gives it, and no more.

A drop-in can take any restriction away, and systemd says nothing of it. So what the unit's file asks for is compared
with what systemd has made of everything: `systemctl show`, org.freedesktop.systemd1(5).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Settings: TypeAlias = Mapping[str, Sequence[str]]
"""Values by name, in the order of the lines that set them."""

_NO_RIGHTS = frozenset(
    {
        "BindPaths",  # shows what is in the host's /dev anyhow; what of it may be opened DeviceAllow says
        "ExecStart",
        "LimitNOFILE",
        "OOMPolicy",
        "Restart",
        "RestartSec",
        "SystemCallErrorNumber",
        "TasksMax",
        "Type",
        "WatchdogSec",
        *(f"{kind}Directory{what}" for kind in ("Runtime", "State", "Cache") for what in ("", "Mode")),
    }
)
"""What a unit's file sets that restricts nothing, or is shown in another form."""

_LISTS = frozenset(
    {
        "CapabilityBoundingSet",
        "ReadWritePaths",
        "RestrictAddressFamilies",
        "SupplementaryGroups",
    }
)
"""Words, each of which allows something."""

_CALLS = "SystemCallFilter"
_DEVICES = "DeviceAllow"
_IMPLIED_DEVICE = "char-rtc r"  # by ProtectClock=yes
_ADDRESSES = "IPAddressDeny"
_ANY_ADDRESS = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True)
class Weakness:
    """A restriction that is not there as it was asked for; `more` says what that allows."""

    name: str
    more: str


def settings_of(unit: str) -> Settings:
    """Of the [Service] section of a unit's file or drop-in. An empty value takes back what came before."""
    section = ""
    settings: dict[str, list[str]] = {}
    for line in map(str.strip, unit.splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            if not value:
                settings[name] = []
            settings.setdefault(name, []).append(value)
    return settings


def properties_of(shown: str) -> Settings:
    """Of what `systemctl show` prints."""
    properties: dict[str, list[str]] = {}
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        properties.setdefault(name, []).append(value)
    return properties


def restrictions(asked: Settings) -> list[str]:
    """The names of those settings that restrict."""
    return [name for name in asked if name not in _NO_RIGHTS]


def weaknesses(asked: Settings, found: Settings, call_groups: Mapping[str, frozenset[str]]) -> list[Weakness]:
    """Restrictions of `asked` that `found` lacks. `call_groups`: system calls by the names of systemd's groups."""
    compared = ((name, _more(name, asked[name], found.get(name, [""]), call_groups)) for name in restrictions(asked))
    return [Weakness(name, more) for name, more in compared if more]


def call_groups(listing: str) -> Mapping[str, frozenset[str]]:
    """What `systemd-analyze syscall-filter` prints, with groups within groups resolved."""
    listed: dict[str, list[str]] = {}
    members: list[str] = []
    for line in listing.splitlines():
        word = line.strip()
        if word.startswith("@") and word == line.rstrip():
            members = listed.setdefault(word, [])
        elif word and not word.startswith("#"):
            members.append(word)

    def resolved(group: str) -> Iterable[str]:
        for member in listed.get(group, ()):
            yield from resolved(member) if member.startswith("@") else (member,)

    return {group: frozenset(resolved(group)) for group in listed}


def mentions(drop_in: Path, name: str) -> bool:
    """Whether a drop-in sets it. One that can't be read may."""
    try:
        return name in settings_of(drop_in.read_text())
    except OSError:
        return True


def _more(name: str, asked: Sequence[str], found: Sequence[str], groups: Mapping[str, frozenset[str]]) -> str:
    """What `found` allows beyond `asked`; empty when nothing."""
    if name == _CALLS:
        return _more_calls(asked, " ".join(found).split(), groups)
    if name == _DEVICES:
        return ", ".join(sorted(set(found) - {*asked, _IMPLIED_DEVICE, ""}))
    wanted, there = " ".join(asked).split(), " ".join(found).split()
    if name == _ADDRESSES:
        missing = set(_ANY_ADDRESS if wanted == ["any"] else wanted) - set(there)
        return f"{', '.join(sorted(missing))} can be reached" if missing else ""
    if name in _LISTS:
        allowed = {word.lower() for word in wanted}
        if there and there[0].startswith("~"):
            return f"everything but {' '.join(there)[1:] or 'nothing'}"
        return ", ".join(word for word in there if word.lower() not in allowed)
    return "" if wanted == there else f"{' '.join(there) or 'nothing'} instead of {' '.join(wanted) or 'nothing'}"


def _more_calls(asked: Sequence[str], there: Sequence[str], groups: Mapping[str, frozenset[str]]) -> str:
    if not there or there[0].startswith("~"):
        return "any system call" if not there or there == ["~"] else "any system call but a few"
    allowed = set(groups.get("@default", ()))  # which systemd adds to each list
    for value in asked:
        words = value.removeprefix("~").split()
        names = {name for word in words for name in (groups.get(word, ()) if word.startswith("@") else (word,))}
        allowed = allowed - names if value.startswith("~") else allowed | names
    more = [name for name in there if ":" not in name and name not in allowed]  # name:EPERM is one that is refused
    return ", ".join(more[:4]) + (f" and {len(more) - 4} more" if len(more) > 4 else "")
