"""What an agent refuses to be told about its guest, and that outside of a guest it changes nothing."""

import base64
import socket
import time
from dataclasses import replace

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import GuestConfiguration, GuestNetwork
from ingle.api_server.ports.guest import GuestChannel

_BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
KEY = f"ssh-ed25519 {_BLOB} me@host"
NETWORK = GuestNetwork("lo", "10.0.2.15/24", "10.0.2.2", ("10.0.2.3",))


def network(**change: object) -> GuestConfiguration:
    return GuestConfiguration(networks=(replace(NETWORK, **change),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("configuration", "reason", "words"),
    [
        (GuestConfiguration(entropy=bytes(4097)), Reason.INVALID_ARGUMENT, "4096"),
        (GuestConfiguration(unix_nanoseconds=0), Reason.INVALID_ARGUMENT, "1970 to 2200"),
        (GuestConfiguration(unix_nanoseconds=2**63 - 1), Reason.INVALID_ARGUMENT, "1970 to 2200"),
        (GuestConfiguration(hostname="Not A Name"), Reason.INVALID_ARGUMENT, "hostname"),
        (GuestConfiguration(hostname="-a"), Reason.INVALID_ARGUMENT, "hostname"),
        (GuestConfiguration(hostname="a" * 64), Reason.INVALID_ARGUMENT, "hostname"),
        (network(address="10.0.2.15"), Reason.INVALID_ARGUMENT, "network address"),
        (network(gateway="router"), Reason.INVALID_ARGUMENT, "network gateway"),
        (network(gateway="fd00::1"), Reason.INVALID_ARGUMENT, "family"),
        (network(interface="eth-none", nameservers=("dns\nsearch evil",)), Reason.INVALID_ARGUMENT, "nameserver"),
        (network(), Reason.INVALID_ARGUMENT, "the kernel's"),
        (network(interface="eth-none"), Reason.GUEST_INTERFACE_NOT_FOUND, "eth-none"),
        (GuestConfiguration(ssh_keys={"": ("not a key",)}), Reason.INVALID_ARGUMENT, "SSH key"),
        (GuestConfiguration(ssh_keys={"": (KEY + "\n" + KEY,)}), Reason.INVALID_ARGUMENT, "one line"),
        (GuestConfiguration(ssh_keys={"nobody-here": (KEY,)}), Reason.GUEST_USER_NOT_FOUND, "nobody-here"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    channel: GuestChannel, configuration: GuestConfiguration, reason: Reason, words: str
) -> None:
    with pytest.raises(GuestError, match=words) as caught:
        await channel.configure(configuration)
    assert caught.value.reason is reason


async def test_a_process_does_not_change_its_host(channel: GuestChannel) -> None:
    name = socket.gethostname()
    configuration = GuestConfiguration(
        entropy=bytes(64), unix_nanoseconds=10**18, hostname="elsewhere", announce=True, ssh_keys={"": (KEY,)}
    )
    with pytest.raises(GuestError) as caught:
        await channel.configure(configuration)
    assert caught.value.reason is Reason.NOT_A_GUEST
    assert socket.gethostname() == name
    assert time.time_ns() > 11 * 10**17
