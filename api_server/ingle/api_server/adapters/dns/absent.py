"""NameService where networks are not shared: their VMMs answer, or rather have the host's servers answer."""

from collections.abc import Awaitable, Callable

from ingle.api_server.model.network import DNS_PORT


class AbsentNames:
    """Serves nobody."""

    waken: Callable[[str], Awaitable[object]]

    async def serve(self, gateway: str) -> int:
        return DNS_PORT
