"""The command `ingle-helper`: serve the network or devices, check the policy, look for pools of addresses."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ingle.host_helper import audit, policy
from ingle.host_helper.capabilities import DEVICES, NETWORK, RightsMissing, keep
from ingle.host_helper.choosing import choose_pools, overlaps
from ingle.host_helper.devices import DevicesPart
from ingle.host_helper.errors import HelperError
from ingle.host_helper.journal import BadJournal
from ingle.host_helper.network import NetworkPart
from ingle.host_helper.server import AlreadyServed, serve

_RUNTIME = Path("/run/ingle-helper")
_DEVICES_RUNTIME = Path("/run/ingle-helper-dm")

_CODES: Mapping[type[Exception], int] = {
    policy.BadPolicy: os.EX_CONFIG,
    policy.BadPool: os.EX_USAGE,
    RightsMissing: os.EX_NOPERM,
    AlreadyServed: os.EX_TEMPFAIL,
    BadJournal: 1,
    HelperError: 1,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0, 1 (serving failed), 64 (no such pool), 75 (another helper runs), 77 (rights are missing), 78 (bad
    policy)."""
    parser = argparse.ArgumentParser(prog="ingle-helper", description="What ingle does as root, and nothing else.")
    parser.add_argument("--policy", type=Path, default=Path("/etc/ingle/helper.toml"), help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check the policy; changes nothing")
    serving = commands.add_parser("serve", help="serve until SIGTERM")
    serving.add_argument("--devices", action="store_true", help="serve device-mapper disks, and not the network")
    serving.add_argument("--runtime", type=Path, help=f"default: {_RUNTIME}, or with --devices {_DEVICES_RUNTIME}")
    looking = commands.add_parser("overlaps", help="what of this host overlaps VMs' addresses, in JSON")
    looking.add_argument("pools", nargs="*", metavar="POOL", help="default: those of the policy")
    choosing = commands.add_parser("choose-pools", help="pools that nothing of this host overlaps, in JSON")
    choosing.add_argument("pools", nargs="*", metavar="POOL", help="to have, or it is an error; default: any")
    arguments = parser.parse_args(argv)
    try:
        _run(arguments)
    except tuple(_CODES) as error:
        sys.stderr.write(f"ingle-helper: {error}\n")
        return next(code for kind, code in _CODES.items() if isinstance(error, kind))
    return 0


def _run(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "check":
            policy.load(arguments.policy)
        case "overlaps":
            pools = list(map(policy.pool_of, arguments.pools)) or policy.load(arguments.policy).pools
            _print(overlaps(pools))
        case "choose-pools":
            present = policy.load(arguments.policy) if arguments.policy.exists() else None
            _print(choose_pools(arguments.pools, present))
        case "serve":
            rules = policy.load(arguments.policy)
            if os.geteuid() != 0:
                raise RightsMissing("only root can do what it is for; systemctl start ingle-helper")
            audit.set_up()
            keep(DEVICES if arguments.devices else NETWORK)
            runtime = arguments.runtime or (_DEVICES_RUNTIME if arguments.devices else _RUNTIME)
            serve(rules, DevicesPart(rules) if arguments.devices else NetworkPart(rules, runtime), runtime)


def _print(answer: object) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
