"""Where an agent is, in words."""

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import TcpAddress, UnixAddress, VsockAddress

Address = TcpAddress | UnixAddress | VsockAddress


def describe(address: Address) -> str:
    """An address as a person writes it."""
    match address:
        case TcpAddress(host, port):
            return f"{host}:{port}"
        case UnixAddress(path):
            return f"unix:{path}"
        case VsockAddress(cid, port):
            return f"vsock:{cid}:{port}"


def unreachable(peer: str, why: str) -> GuestError:
    """The agent at an address, as `describe` has it, can't be talked to."""
    return GuestError(Reason.GUEST_UNREACHABLE, f"the guest's agent at {peer} does not answer: {why}")
