"""Who a guest is, and what it says to that."""

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import identity_messages
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import GuestIdentity, GuestNetwork, HookResult, IdentityTaken


def test_all_of_it_arrives() -> None:
    identity = GuestIdentity(
        token=b"t" * 32,
        entropy=b"e",
        unix_nanoseconds=1_700_000_000_000_000_001,
        clock_tolerance_seconds=0.05,
        hostname="hearth",
        machine_id="0123456789abcdef" * 2,
        networks=(GuestNetwork("eth0", "10.0.2.15/24", "10.0.2.2", ("10.0.2.3",), "52:54:00:12:34:56"),),
        announce=True,
        ssh_keys={"": ("a key",), "ember": ()},
        env={"A": "1"},
        disk_bytes=2**40,
    )
    assert identity_messages.identity(identity) == agent_pb2.GuestIdentity(
        token=b"t" * 32,
        entropy=b"e",
        clock=agent_pb2.ClockSetting(unix_nanoseconds=1_700_000_000_000_000_001, tolerance_nanoseconds=50_000_000),
        hostname="hearth",
        machine_id="0123456789abcdef" * 2,
        networks=[
            agent_pb2.Network(
                interface="eth0",
                address="10.0.2.15/24",
                gateway="10.0.2.2",
                nameservers=["10.0.2.3"],
                mac="52:54:00:12:34:56",
            )
        ],
        announce=True,
        ssh_keys=[agent_pb2.AuthorizedKeys(keys=["a key"]), agent_pb2.AuthorizedKeys(user="ember")],
        environment=agent_pb2.Environment(variables={"A": "1"}),
        disk_bytes=2**40,
    )


def test_nothing_is_told_when_nothing_is_said() -> None:
    assert identity_messages.identity(GuestIdentity()) == agent_pb2.GuestIdentity()


def test_no_variables_at_all_are_told_as_such() -> None:
    assert identity_messages.identity(GuestIdentity(env={})).HasField("environment")


def test_how_a_hook_has_ended() -> None:
    said = agent_pb2.HookResult(exit_code=137, timed_out=True, output=b"one\n\xfftwo\x1b[2J\n")
    for message in (agent_pb2.RestResponse(hook=said), agent_pb2.ThawResponse(hook=said)):
        assert identity_messages.hook_result(message) == HookResult(137, True, "one \ufffdtwo [2J")
    assert identity_messages.hook_result(agent_pb2.RestResponse()) is None
    with pytest.raises(GuestError) as caught:
        identity_messages.hook_result(agent_pb2.ThawResponse(hook=agent_pb2.HookResult(exit_code=256)))
    assert caught.value.reason is Reason.GUEST_PROTOCOL


def test_the_answer() -> None:
    answer = agent_pb2.IdentityTaken(
        clock_offset_nanoseconds=-1_500_000_000, clock_stepped=True, announced_addresses=["10.0.2.15", "\x1b[2J"]
    )
    assert identity_messages.taken(answer) == IdentityTaken(-1.5, True, ("10.0.2.15", " [2J"))
    assert identity_messages.taken(agent_pb2.IdentityTaken()) == IdentityTaken()


def test_an_absurd_answer_is_refused() -> None:
    with pytest.raises(GuestError) as caught:
        identity_messages.taken(agent_pb2.IdentityTaken(announced_addresses=["::1"] * 1001))
    assert caught.value.reason is Reason.GUEST_PROTOCOL
