"""`ingle system`: ingle as a service of the whole machine, for all users of a group."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from ingle.cli.errors import EXIT_FAILED
from ingle.cli.jsonable import Json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson
from ingle.cli.output import fields, print_json, say, table, tell
from ingle.cli.system.installation import USER, Installed, System
from ingle.cli.system.manager import Systemd
from ingle.cli.system.pools import ANY

IpPool = Annotated[
    list[str] | None,
    typer.Option(
        "--ip-pool",
        metavar="NETWORK",
        help=f"VMs' addresses: a private /16 to /24, a unique local /48, one of each, or {ANY}.",
    ),
]
"""That nothing of the host overlaps."""

app = new_app(
    "Install ingle as a service of this whole machine, and look after it.",
    first=("sudo ingle system install", "ingle system status", "ingle doctor"),
)


@app.command(
    epilog=examples(
        "sudo ingle system install",
        "sudo ingle system install --group wheel",
        "sudo ingle system install --ip-pool 10.20.0.0/16",
    )
)
def install(
    group: Annotated[str, typer.Option("--group", metavar="GROUP", help="Its members may use ingle.")] = USER,
    ip_pool: IpPool = None,
    json: AsJson = False,
) -> None:
    """Make user, group, directories and units, and start them. Done again, it mends what has changed.

    The code must be root's alone: the error says how to get it there. Nothing of somebody else is overwritten."""
    system = System(Systemd())
    changed = system.install(group, _say(json=json), ip_pool or ())
    installed = system.installed()
    if json:
        print_json({"changed": changed, **_as_json(installed)})
        return
    say("installed" if changed else "already installed, nothing had to change")
    caller = os.environ.get("SUDO_USER", "")
    if caller and caller != "root":
        tell(f"To use it as {caller}: sudo usermod -aG {group} {caller}, then log in again.")


@app.command(epilog=examples("ingle system status", "ingle system status --json"))
def status(json: AsJson = False) -> None:
    """What is installed and whether it runs; exit code 1 when something is stopped, or not as installed."""
    installed = System(Systemd()).installed()
    if json:
        print_json(_as_json(installed))
    else:
        by = "its Debian package: apt upgrades and removes it" if installed.by_package else "`ingle system install`"
        say(fields((("code", str(installed.prefix)), ("group", installed.group), ("installed by", by))))
        say()
        units = ((unit.unit, f"{unit.active} ({unit.sub})", unit.enabled) for unit in installed.units)
        say(table(("UNIT", "STATE", "AT BOOT"), units))
        for found in installed.drift:
            say(f"{found.file.path}: {found.condition.value}; `{installed.layout.mending}` mends it")
    if not installed.healthy:
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog=examples("sudo ingle system restart", "sudo ingle system restart --ip-pool auto"))
def restart(ip_pool: IpPool = None) -> None:
    """Restart the services. VMs go on running; with --ip-pool none may be connected."""
    System(Systemd()).restart(tell, ip_pool or ())
    say("restarted")


@app.command(
    epilog=examples("sudo /opt/ingle/bin/pip install --upgrade 'ingle[cli,server]'", "sudo ingle system upgrade")
)
def upgrade(json: AsJson = False) -> None:
    """Bring units and files up to this version's, and restart the services with its code. VMs go on running."""
    system = System(Systemd())
    system.upgrade(_say(json=json))
    if json:
        print_json(_as_json(system.installed()))
    else:
        say("upgraded")


@app.command(epilog=examples("sudo ingle system uninstall", "sudo ingle system uninstall --purge"))
def uninstall(
    purge: Annotated[bool, typer.Option("--purge", help="Remove VMs, images, configuration and user too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Stop all services and VMs, and remove what the install made. VMs and images stay, unless --purge."""
    if not yes:
        what = "and every VM and image with it" if purge else "and stop its VMs"
        typer.confirm(f"Remove the system install {what}?", abort=True, err=True)
    System(Systemd()).uninstall(tell, purge=purge)
    say("uninstalled")


def _say(*, json: bool) -> Callable[[str], None]:
    return (lambda _: None) if json else tell


def _as_json(installed: Installed) -> dict[str, Json]:
    return {
        "prefix": str(installed.prefix),
        "group": installed.group,
        "installed_by": "dpkg" if installed.by_package else "ingle",
        "healthy": installed.healthy,
        "units": [
            {"unit": unit.unit, "active": unit.active, "sub": unit.sub, "enabled": unit.enabled}
            for unit in installed.units
        ],
        "files": [{"path": str(found.file.path), "condition": found.condition.value} for found in installed.files],
    }
