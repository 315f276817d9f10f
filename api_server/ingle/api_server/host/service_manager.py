"""What a service tells systemd about itself; see sd_notify(3)."""

import os
import socket

_VARIABLE = "NOTIFY_SOCKET"


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
