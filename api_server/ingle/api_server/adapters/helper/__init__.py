"""What only root can do, asked of the helper."""

from ingle.api_server.adapters.helper.absent import AbsentNetwork

__all__ = ["AbsentNetwork"]
