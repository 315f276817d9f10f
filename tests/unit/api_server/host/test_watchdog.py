"""A server whose event loop stands still is ended, by whoever looks after it."""

import socket
import subprocess
import sys
from pathlib import Path

HANG = """
import asyncio, time
from ingle.api_server.host import service_manager
service_manager._HANGS_SECONDS = 1.0

async def main():
    asyncio.create_task(service_manager.feed_watchdog())
    await asyncio.sleep(0)
    def stand_still(): time.sleep(600)
    stand_still()

asyncio.run(main())
"""
FEED = """
import asyncio
from ingle.api_server.host import service_manager

async def main():
    task = asyncio.create_task(service_manager.feed_watchdog())
    await asyncio.sleep(0)

asyncio.run(main())
"""


def test_without_a_manager_it_ends_itself_and_says_where_it_stood() -> None:
    ended = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "stand_still" in ended.stderr


def test_a_manager_that_asked_for_it_is_told_that_the_loop_goes_round(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
        subprocess.run([sys.executable, "-c", FEED], env=env, check=True, timeout=60)
        assert manager.recv(100) == b"WATCHDOG=1"
