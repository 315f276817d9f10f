"""NameService where networks are not shared: their VMMs answer, or rather have the host's servers answer."""

from ingle.api_server.model.network import DNS_PORT
from ingle.api_server.ports.activation import Waken


class AbsentNames:
    """Serves nobody."""

    waken: Waken

    async def serve(self, gateway: str) -> int:
        return DNS_PORT
