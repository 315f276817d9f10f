"""The pools that VMs of shared networks have their addresses of: chosen by the root helper's program, which knows what
is allowed and what the host has, and kept in its policy."""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.cli.client import connect_to
from ingle.cli.errors import CliError, failed
from ingle.helper.v1.helper_pb2 import ListRequest, ListResponse

ANY = "auto"
"""In place of a pool: one that nothing overlaps."""

_REFUSED = os.EX_USAGE  # see ingle.host_helper.main
_ANOTHER = f"--ip-pool {ANY} takes one that nothing overlaps"


@dataclass(frozen=True)
class Pools:
    """As the policy has them; `ipv6` may be empty. `why` has a sentence for each."""

    ipv4: str
    ipv6: str
    why: tuple[str, ...]

    def written_into(self, policy: str) -> str:
        """`policy` with these pools, and all else as it is."""
        for key, pool in (("ipv4_pool", self.ipv4), ("ipv6_pool", self.ipv6)):
            line = f'{key} = "{pool}"'
            policy, found = re.subn(rf"^{key}\s*=.*$", line, policy, flags=re.MULTILINE)
            if not found:
                policy = f"{policy.rstrip()}\n{line}\n"
        return policy


def choose_pools(prefix: Path, asked: Sequence[str]) -> Pools:
    """Those that are `asked` for; of a family that is not, the policy's where that is there and nothing overlaps it,
    else the first of those that ingle knows. Raises CliError, with names, for one that overlaps what this host has."""
    wanted = [pool for pool in asked if pool != ANY]
    done = subprocess.run(
        [prefix / "bin/ingle-helper", "choose-pools", *wanted], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        message = said[-1].removeprefix("ingle-helper: ")
        if done.returncode == _REFUSED:
            raise failed("INVALID_ARGUMENT", message, _ANOTHER)
        raise failed("TOOL_FAILED", f"no pool can be chosen: {message}", f"{prefix}/bin/ingle-helper choose-pools")
    told = json.loads(done.stdout)
    return Pools(told["ipv4_pool"], told["ipv6_pool"], tuple(told["why"]))


def check_unused(helper: Path) -> None:
    """Raise CliError while VMs have addresses of the helper that listens on `helper`: they would lose them."""
    try:
        with connect_to(helper) as called:
            taps = called.call(ListRequest(), ListResponse).taps
    except CliError as error:
        failure = error.failures[0]
        raise failed(
            failure.reason, f"whether VMs use the pool is not known: {failure.message}", failure.remedy
        ) from None
    if taps:
        ids = " ".join(sorted({tap.vm_id for tap in taps}))
        message = f"VMs that run have addresses of the pool, and would lose them: {ids}"
        raise failed("WRONG_STATE", message, f"ingle vm stop {ids}")
