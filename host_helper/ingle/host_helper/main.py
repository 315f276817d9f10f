"""The command `ingle-helper`: serve the network or devices, or check the policy."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ingle.host_helper import audit, policy
from ingle.host_helper.devices import DevicesPart
from ingle.host_helper.errors import HelperError
from ingle.host_helper.journal import BadJournal
from ingle.host_helper.network import NetworkPart
from ingle.host_helper.server import AlreadyServed, serve

_RUNTIME = Path("/run/ingle-helper")
_DEVICES_RUNTIME = Path("/run/ingle-helper-dm")

# sysexits.h: EX_CONFIG, EX_NOPERM, and EX_TEMPFAIL for "somebody else serves already".
_CONFIG_ERROR = 78
_NOT_ROOT = 77
_ALREADY_SERVED = 75


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 1 (serving failed), 75 (another helper runs), 77 (not root), 78 (bad policy)."""
    parser = argparse.ArgumentParser(prog="ingle-helper", description="What ingle does as root, and nothing else.")
    parser.add_argument("--policy", type=Path, default=Path("/etc/ingle/helper.toml"), help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check the policy; changes nothing")
    serving = commands.add_parser("serve", help="serve until SIGTERM")
    serving.add_argument("--devices", action="store_true", help="serve device-mapper disks, and not the network")
    serving.add_argument("--runtime", type=Path, help=f"default: {_RUNTIME}, or with --devices {_DEVICES_RUNTIME}")
    arguments = parser.parse_args(argv)
    try:
        rules = policy.load(arguments.policy)
    except policy.BadPolicy as error:
        return _complain(str(error), _CONFIG_ERROR)
    if arguments.command == "check":
        return 0
    if os.geteuid() != 0:
        return _complain("only root can do what it is for; systemctl start ingle-helper", _NOT_ROOT)
    audit.set_up()
    try:
        if arguments.devices:
            serve(rules, DevicesPart(rules), arguments.runtime or _DEVICES_RUNTIME)
        else:
            runtime = arguments.runtime or _RUNTIME
            serve(rules, NetworkPart(rules, runtime), runtime)
    except AlreadyServed as error:
        return _complain(str(error), _ALREADY_SERVED)
    except (BadJournal, HelperError) as error:
        return _complain(str(error), 1)
    return 0


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"ingle-helper: {message}\n")
    return code
