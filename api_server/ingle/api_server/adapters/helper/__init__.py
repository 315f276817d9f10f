"""What only root can do, asked of the helper."""

from ingle.api_server.adapters.helper.absent import AbsentNetwork
from ingle.api_server.adapters.helper.network import HelperNetwork

__all__ = ["AbsentNetwork", "HelperNetwork"]
