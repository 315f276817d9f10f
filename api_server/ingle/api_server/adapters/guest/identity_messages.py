"""Who a guest is, as agent messages, and what it says of that."""

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages
from ingle.api_server.model.guest import GuestIdentity, HookResult, IdentityTaken

_MOST_ADDRESSES = 1000
_HIGHEST_EXIT_CODE = 255


def identity(wanted: GuestIdentity) -> agent_pb2.GuestIdentity:
    """An identity as the agent wants it, whether it boots or runs."""
    message = agent_pb2.GuestIdentity(
        token=wanted.token,
        entropy=wanted.entropy,
        hostname=wanted.hostname,
        machine_id=wanted.machine_id,
        networks=[
            agent_pb2.Network(
                interface=network.interface,
                address=network.address,
                gateway=network.gateway,
                nameservers=network.nameservers,
                mac=network.mac,
            )
            for network in wanted.networks
        ],
        announce=wanted.announce,
        ssh_keys=[agent_pb2.AuthorizedKeys(user=user, keys=keys) for user, keys in wanted.ssh_keys.items()],
        disk_bytes=wanted.disk_bytes,
    )
    if wanted.env is not None:
        message.environment.CopyFrom(agent_pb2.Environment(variables=wanted.env))
    if wanted.unix_nanoseconds is not None:
        message.clock.unix_nanoseconds = wanted.unix_nanoseconds
        message.clock.tolerance_nanoseconds = round(wanted.clock_tolerance_seconds * 1e9)
        message.clock.unless_set_by_guest = wanted.clock_unless_set_by_guest
    return message


def taken(message: agent_pb2.IdentityTaken) -> IdentityTaken:
    """What the agent says that it did. Raises GuestError(GUEST_PROTOCOL)."""
    addresses = message.announced_addresses
    if len(addresses) > _MOST_ADDRESSES:
        raise messages.nonsense(f"{len(addresses)} addresses")
    offset = message.clock_offset_nanoseconds / 1e9 if message.HasField("clock_offset_nanoseconds") else None
    return IdentityTaken(offset, message.clock_stepped, tuple(map(messages.printable, addresses)))


def hook_result(message: agent_pb2.RestResponse | agent_pb2.ThawResponse) -> HookResult | None:
    """How a hook has ended, if there is one. Raises GuestError(GUEST_PROTOCOL)."""
    if not message.HasField("hook"):
        return None
    hook = message.hook
    if hook.exit_code > _HIGHEST_EXIT_CODE:
        raise messages.nonsense(f"exit code {hook.exit_code}")
    return HookResult(hook.exit_code, hook.timed_out, messages.printable(hook.output.decode(errors="replace")).strip())
