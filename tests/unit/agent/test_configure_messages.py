"""What a guest is told about itself, and what it says to that."""

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import configure_messages
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import Configured, GuestConfiguration, GuestNetwork


def test_all_of_it_arrives() -> None:
    configuration = GuestConfiguration(
        entropy=b"e",
        unix_nanoseconds=1_700_000_000_000_000_001,
        clock_tolerance_seconds=0.05,
        hostname="hearth",
        networks=(GuestNetwork("eth0", "10.0.2.15/24", "10.0.2.2", ("10.0.2.3",)),),
        announce=True,
        ssh_keys={"": ("a key",), "ember": ()},
    )
    assert configure_messages.request(configuration).configure == agent_pb2.ConfigureRequest(
        entropy=b"e",
        clock=agent_pb2.ClockSetting(unix_nanoseconds=1_700_000_000_000_000_001, tolerance_nanoseconds=50_000_000),
        hostname="hearth",
        networks=[
            agent_pb2.Network(interface="eth0", address="10.0.2.15/24", gateway="10.0.2.2", nameservers=["10.0.2.3"])
        ],
        announce=True,
        ssh_keys=[agent_pb2.AuthorizedKeys(keys=["a key"]), agent_pb2.AuthorizedKeys(user="ember")],
    )


def test_nothing_is_told_when_nothing_is_said() -> None:
    assert configure_messages.request(GuestConfiguration()).configure == agent_pb2.ConfigureRequest()


def test_the_answer() -> None:
    answer = agent_pb2.ConfigureResponse(
        clock_offset_nanoseconds=-1_500_000_000, clock_stepped=True, announced_addresses=["10.0.2.15", "\x1b[2J"]
    )
    assert configure_messages.configured(answer) == Configured(-1.5, True, ("10.0.2.15", " [2J"))
    assert configure_messages.configured(agent_pb2.ConfigureResponse()) == Configured()


def test_an_absurd_answer_is_refused() -> None:
    with pytest.raises(GuestError) as caught:
        configure_messages.configured(agent_pb2.ConfigureResponse(announced_addresses=["::1"] * 1001))
    assert caught.value.reason is Reason.GUEST_PROTOCOL
