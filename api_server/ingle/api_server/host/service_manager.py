"""What a service tells systemd about itself; see sd_notify(3)."""

import asyncio
import faulthandler
import os
import socket

_VARIABLE = "NOTIFY_SOCKET"
_HANGS_SECONDS = 60.0
_FED_SECONDS = 10.0


def tell_manager(state: str) -> None:
    """Send `state`, e.g. READY=1. Nothing happens where no service manager asked for it, and a manager that does not
    listen is none of our concern."""
    address = os.environ.get(_VARIABLE, "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.connect("\0" + address[1:] if address.startswith("@") else address)
            manager.send(state.encode())
        except OSError:
            return


async def feed_watchdog() -> None:
    """Show again and again that the event loop goes round: see WatchdogSec in systemd.service(5).

    Where no manager looks after us, a loop that has stood still for a minute ends us, with a word about where it stood.
    VMs live on, and the next command starts a server."""
    managed = "WATCHDOG_USEC" in os.environ
    try:
        while True:
            if managed:
                tell_manager("WATCHDOG=1")
            else:
                faulthandler.dump_traceback_later(_HANGS_SECONDS, exit=True)
            await asyncio.sleep(_FED_SECONDS)
    finally:
        faulthandler.cancel_dump_traceback_later()
