"""Where an agent is, in words, and whether it is still there."""

from ingle.api_server.host.process import has_its_files
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import AgentAddress, HybridVsockAddress, SerialAddress, UnixAddress, VsockAddress


def describe(address: AgentAddress) -> str:
    """An address as a person writes it."""
    match address:
        case HybridVsockAddress(path, port):
            return f"vsock:{path}:{port}"
        case SerialAddress(path):
            return f"serial:{path}"
        case UnixAddress(path):
            return f"unix:{path}"
        case VsockAddress(cid=cid, port=port):
            return f"vsock:{cid}:{port}"


def check_holder(address: AgentAddress) -> None:
    """Raise GuestError(GUEST_UNREACHABLE) unless what was just connected to is the VMM's, before a byte is sent to it.

    A VMM has its guest's vsock address from its beginning to its end. One that still has its files now has had it all
    the time, so nobody else can have taken the connection; after its end, whoever asks for it would be told the
    token."""
    match address:
        case VsockAddress(holder=holder) if holder is not None:
            if not has_its_files(holder.pid, holder.start_time):
                raise unreachable(describe(address), "its VMM has ended")


def unreachable(peer: str, why: str) -> GuestError:
    """The agent at an address, as `describe` has it, can't be talked to."""
    return GuestError(Reason.GUEST_UNREACHABLE, f"the guest's agent at {peer} does not answer: {why}")
