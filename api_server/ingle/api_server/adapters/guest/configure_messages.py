"""What a guest is told about itself, as agent messages."""

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages
from ingle.api_server.model.guest import Configured, GuestConfiguration

_MOST_ADDRESSES = 1000


def request(configuration: GuestConfiguration) -> agent_pb2.Request:
    """A configuration as the agent wants it."""
    message = agent_pb2.ConfigureRequest(
        entropy=configuration.entropy,
        hostname=configuration.hostname,
        networks=[
            agent_pb2.Network(
                interface=network.interface,
                address=network.address,
                gateway=network.gateway,
                nameservers=network.nameservers,
            )
            for network in configuration.networks
        ],
        announce=configuration.announce,
        ssh_keys=[agent_pb2.AuthorizedKeys(user=user, keys=keys) for user, keys in configuration.ssh_keys.items()],
    )
    if configuration.unix_nanoseconds is not None:
        message.clock.unix_nanoseconds = configuration.unix_nanoseconds
        message.clock.tolerance_nanoseconds = round(configuration.clock_tolerance_seconds * 1e9)
        message.clock.unless_set_by_guest = configuration.clock_unless_set_by_guest
    return agent_pb2.Request(configure=message)


def configured(message: agent_pb2.ConfigureResponse) -> Configured:
    """What the agent says that it did. Raises GuestError(GUEST_PROTOCOL)."""
    addresses = message.announced_addresses
    if len(addresses) > _MOST_ADDRESSES:
        raise messages.nonsense(f"{len(addresses)} addresses")
    offset = message.clock_offset_nanoseconds / 1e9 if message.HasField("clock_offset_nanoseconds") else None
    return Configured(offset, message.clock_stepped, tuple(map(messages.printable, addresses)))
