"""GuestService: what happens inside a VM. Messages and the domain; the way in is `operations.use_guest`."""

from ingle.api_server.operations.delete_vm import DeleteVm
from ingle.api_server.operations.use_guest import UseGuest
from ingle.api_server.rpc.guest.commands import CommandMethods
from ingle.api_server.rpc.guest.files import FileMethods
from ingle.api_server.rpc.guest.network import NetworkMethods
from ingle.api_server.rpc.guest.sessions import SessionMethods

__all__ = ["GuestServicer"]


class GuestServicer(CommandMethods, SessionMethods, FileMethods, NetworkMethods):
    """All of its methods."""

    def __init__(self, guests: UseGuest, delete: DeleteVm) -> None:
        self._guests = guests
        self._delete = delete
