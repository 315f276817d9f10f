"""The agent protocol, spoken from the host."""

from ingle.api_server.adapters.guest.channel import Dialler

__all__ = ["Dialler"]
