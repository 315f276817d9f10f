"""What a probe boot leaves behind: a verdict, and nothing else."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from ingle.api_server.adapters.vmm import probe
from ingle.api_server.host.leftovers import kill_leftovers
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.vm import Kernel

KERNEL = Kernel("b7" * 32, (), "6.1", 1 << 20, (), datetime(2026, 1, 1, tzinfo=UTC), "test")


class Media:
    """An initramfs for a guest that never boots."""

    async def write(self, kernel: Kernel, config: object, path: Path) -> None:
        path.touch()


def stand_in(tmp_path: Path, does: str) -> str:
    """A program in the VMM's place."""
    program = tmp_path / "vmm"
    program.write_text(f"#!{sys.executable}\n{does}\n")
    program.chmod(0o755)
    return str(program)


def probe_with(program: str, tools: Tools, cache: Path) -> probe.AccelerationProbe:
    media = cast("Any", Media())
    return probe.AccelerationProbe("its", lambda *_: [program], "/dev/ttyS1", media, cache, tools.environment)


async def test_what_a_server_left_that_was_killed_in_the_middle_is_gone_after_the_next_probe(tmp_path: Path) -> None:
    tools, cache = Tools(tmp_path / "state"), tmp_path / "cache"
    left = cache / "probe-its" / "output"
    left.parent.mkdir(parents=True)
    left.write_text("said by another")
    program = stand_in(tmp_path, "import sys; sys.exit('no luck')")
    found = probe_with(program, tools, cache)
    assert await found._boot(KERNEL) == "a probe guest ended without booting: no luck"
    assert list(cache.iterdir()) == []


async def test_a_probe_guest_is_one_of_those_that_a_server_ends_as_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, cache = Tools(tmp_path / "state"), tmp_path / "cache"
    program = stand_in(tmp_path, "import time; open('up', 'w').close(); time.sleep(600)")
    found = probe_with(program, tools, cache)
    monkeypatch.setattr(probe, "_PROBE_SECONDS", 20.0)
    booting = asyncio.create_task(found._boot(KERNEL))
    while not (cache / "probe-its" / "up").exists():
        await asyncio.sleep(0.01)
    assert await kill_leftovers(tmp_path / "state") == 1
    assert "ended without booting" in await booting
    assert os.listdir(cache) == []


@pytest.mark.parametrize("said", ["open('ready', 'w').write('ingle-agent ready')", "print('[1.2] ingle-agent ready')"])
async def test_a_guest_whose_agent_has_spoken_runs_here_wherever_its_console_goes(tmp_path: Path, said: str) -> None:
    tools, cache = Tools(tmp_path / "state"), tmp_path / "cache"
    assert await probe_with(stand_in(tmp_path, said), tools, cache)._boot(KERNEL) == ""
