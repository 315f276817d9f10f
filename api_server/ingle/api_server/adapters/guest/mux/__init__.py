"""Many streams over one virtio-serial port: the host's end of guest_agent/internal/mux."""

from ingle.api_server.adapters.guest.mux.lines import Lines
from ingle.api_server.adapters.guest.mux.stream import Stream

__all__ = ["Lines", "Stream"]
