"""What a server needs of this host, checked without changing anything."""

import asyncio
import json
import os
import sys
from dataclasses import asdict

from ingle.api_server.config import Config
from ingle.api_server.doctor.host import host_checks, stray_check
from ingle.api_server.doctor.system import system_checks, tell_overlaps
from ingle.api_server.doctor.vms import vm_checks
from ingle.api_server.model.caller import ROOT, Caller
from ingle.api_server.model.check import Check
from ingle.api_server.settings import unknown_variables

__all__ = ["Check", "examine", "main", "stray_check", "tell_overlaps", "vm_checks"]


def main(config: Config, *, as_json: bool) -> int:
    """Print the findings; 1 when something that users ask for will fail."""
    checks = [
        *asyncio.run(examine(config, Caller(ROOT, admin=True))),
        *(Check("settings", "warn", what) for what in unknown_variables(os.environ)),
    ]
    if as_json:
        report = {
            "checks": [asdict(check) for check in checks],
            "settings": [asdict(setting) for setting in config.settings],
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        for check in checks:
            sys.stdout.write(f"{check.status:4}  {check.name}: {check.detail}\n")
            if check.remedy:
                sys.stdout.write(f"      try: {check.remedy}\n")
    return 1 if any(check.status == "fail" for check in checks) else 0


async def examine(config: Config, caller: Caller) -> list[Check]:
    """All findings that the caller may know, in the order a person would want to mend them."""
    return [*await host_checks(config), *(await system_checks(config, caller) if config.system else ())]
