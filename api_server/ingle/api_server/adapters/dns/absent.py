"""NameService where networks are not shared: their VMMs answer, or rather have the host's servers answer."""

from ingle.api_server.model.network import DNS_PORT


class AbsentNames:
    """Serves nobody."""

    async def serve(self, gateway: str) -> int:
        return DNS_PORT
