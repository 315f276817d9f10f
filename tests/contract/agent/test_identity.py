"""What an agent refuses to be told about who its guest is, and that outside of a guest it changes nothing."""

import asyncio
import base64
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import ExecSpec, Exited, GuestIdentity, GuestNetwork, Signal, Stdout
from ingle.api_server.ports.guest import GuestChannel

from .conftest import Agent, StartAgent

_BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
KEY = f"ssh-ed25519 {_BLOB} me@host"
NETWORK = GuestNetwork("lo", "10.0.2.15/24", "10.0.2.2", ("10.0.2.3",))


def network(**change: object) -> GuestIdentity:
    return GuestIdentity(networks=(replace(NETWORK, **change),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("identity", "reason", "words"),
    [
        (GuestIdentity(entropy=bytes(4097)), Reason.INVALID_ARGUMENT, "4096"),
        (GuestIdentity(unix_nanoseconds=0), Reason.INVALID_ARGUMENT, "1970 to 2200"),
        (GuestIdentity(unix_nanoseconds=2**63 - 1), Reason.INVALID_ARGUMENT, "1970 to 2200"),
        (GuestIdentity(hostname="Not A Name"), Reason.INVALID_ARGUMENT, "hostname"),
        (GuestIdentity(hostname="-a"), Reason.INVALID_ARGUMENT, "hostname"),
        (GuestIdentity(hostname="a" * 64), Reason.INVALID_ARGUMENT, "hostname"),
        (network(address="10.0.2.15"), Reason.INVALID_ARGUMENT, "network address"),
        (network(gateway="router"), Reason.INVALID_ARGUMENT, "network gateway"),
        (network(gateway="fd00::1"), Reason.INVALID_ARGUMENT, "family"),
        (network(interface="eth-none", nameservers=("dns\nsearch evil",)), Reason.INVALID_ARGUMENT, "nameserver"),
        (network(), Reason.INVALID_ARGUMENT, "the kernel's"),
        (network(interface="eth-none"), Reason.GUEST_INTERFACE_NOT_FOUND, "eth-none"),
        (network(interface="eth-none", mac="here"), Reason.INVALID_ARGUMENT, "hardware address"),
        (GuestIdentity(machine_id="0" * 32), Reason.INVALID_ARGUMENT, "machine-id"),
        (GuestIdentity(machine_id="a" * 31), Reason.INVALID_ARGUMENT, "machine-id"),
        (GuestIdentity(token=bytes(33)), Reason.INVALID_ARGUMENT, "32"),
        (GuestIdentity(env={"": "1"}), Reason.INVALID_ARGUMENT, "variable"),
        (GuestIdentity(env={str(number): "" for number in range(10_001)}), Reason.INVALID_ARGUMENT, "10000"),
        (GuestIdentity(disk_bytes=2**30), Reason.INVALID_ARGUMENT, "root device"),
        (GuestIdentity(ssh_keys={"": ("not a key",)}), Reason.INVALID_ARGUMENT, "SSH key"),
        (GuestIdentity(ssh_keys={"": (KEY + "\n" + KEY,)}), Reason.INVALID_ARGUMENT, "one line"),
        (GuestIdentity(ssh_keys={"nobody-here": (KEY,)}), Reason.GUEST_USER_NOT_FOUND, "nobody-here"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    channel: GuestChannel, identity: GuestIdentity, reason: Reason, words: str
) -> None:
    with pytest.raises(GuestError, match=words) as caught:
        await channel.take_identity(identity)
    assert caught.value.reason is reason


async def test_a_process_does_not_change_its_host(channel: GuestChannel) -> None:
    name = socket.gethostname()
    identity = GuestIdentity(
        entropy=bytes(64), unix_nanoseconds=10**18, hostname="elsewhere", announce=True, ssh_keys={"": (KEY,)}
    )
    with pytest.raises(GuestError) as caught:
        await channel.take_identity(identity)
    assert caught.value.reason is Reason.NOT_A_GUEST
    assert socket.gethostname() == name
    assert time.time_ns() > 11 * 10**17


FORMER, NEW = b"f" * 32, b"n" * 32


@pytest.fixture
def pretender(start_agent: StartAgent, tmp_path: Path) -> Agent:
    """An agent that takes identities, whose first token is in a file."""
    (tmp_path / "token").write_bytes(FORMER)
    return start_agent("--pretend", "--token-file", str(tmp_path / "token"))


async def refused(channel: GuestChannel, reason: Reason) -> None:
    with pytest.raises(GuestError) as caught:
        await channel.ping()
    assert caught.value.reason is reason


async def test_the_former_token_opens_nothing_once_there_is_a_new_one(pretender: Agent) -> None:
    former, new = pretender.channel(FORMER), pretender.channel(NEW)
    await refused(new, Reason.GUEST_PROTOCOL)
    for channel in (former, new):  # doing it again is fine
        await channel.take_identity(GuestIdentity(token=NEW))
        await refused(former, Reason.GUEST_PROTOCOL)
        await new.ping()
    with pytest.raises(GuestError, match="token"):
        await former.take_identity(GuestIdentity(token=FORMER))


async def test_an_identity_that_makes_no_sense_changes_nothing(pretender: Agent) -> None:
    former = pretender.channel(FORMER)
    async with former.exec(ExecSpec(("sleep", "1000"))) as command:
        for broken in (GuestIdentity(token=NEW[:31]), GuestIdentity(token=NEW, hostname="Not A Name")):
            with pytest.raises(GuestError) as caught:
                await former.take_identity(broken)
            assert caught.value.reason is Reason.INVALID_ARGUMENT
        await former.ping()
        await command.say(Signal(signal.SIGKILL))
        events = [event async for event in command.events()]
    assert events[-1] == Exited(137, 9)


async def test_who_came_with_the_former_token_is_ended_with_it(pretender: Agent) -> None:
    former = pretender.channel(FORMER)
    async with former.exec(ExecSpec(("sleep", "1000"))) as command:
        await pretender.channel(FORMER).take_identity(GuestIdentity(token=NEW))
        with pytest.raises(GuestError) as caught:
            _ = [event async for event in command.events()]
    assert caught.value.reason is Reason.GUEST_UNREACHABLE


async def test_of_many_who_come_at_once_one_is_first_and_the_others_are_nobody(pretender: Agent) -> None:
    tokens = [bytes((number,)) * 32 for number in range(8)]

    async def take(token: bytes) -> bytes:
        await pretender.channel(FORMER).take_identity(GuestIdentity(token=token))
        return token

    done = await asyncio.gather(*map(take, tokens), return_exceptions=True)
    (first,) = [token for token in done if isinstance(token, bytes)]
    assert all(isinstance(other, GuestError) for other in done if other != first)
    await pretender.channel(first).ping()


async def test_commands_have_the_variables_of_whom_the_guest_is(pretender: Agent) -> None:
    async def variables(channel: GuestChannel) -> str:
        async with channel.exec(ExecSpec(("sh", "-c", "echo $A-$B"))) as command:
            events = [event async for event in command.events()]
        return b"".join(event.data for event in events if isinstance(event, Stdout)).decode().strip()

    former, new = pretender.channel(FORMER), pretender.channel(NEW)
    await former.take_identity(GuestIdentity(env={"A": "1", "B": "2"}))
    assert await variables(former) == "1-2"
    await former.take_identity(GuestIdentity(hostname="hearth"))
    assert await variables(former) == "1-2"
    await former.take_identity(GuestIdentity(token=NEW, env={"A": "3"}))
    assert await variables(new) == "3-"
    with pytest.raises(GuestError) as caught:
        await new.take_identity(GuestIdentity(env={"A=B": "1"}))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
