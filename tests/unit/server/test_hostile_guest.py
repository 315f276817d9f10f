"""Numbers a guest may send that nobody after us could show."""

import pytest

from ingle.agent.v1 import agent_pb2
from ingle.api_server.adapters.guest import messages
from ingle.api_server.model.errors import GuestError, Reason


def test_an_uptime_that_no_duration_holds_is_nonsense() -> None:
    with pytest.raises(GuestError) as refused:
        messages.stats(agent_pb2.StatsResponse(uptime_milliseconds=2**64 - 1))
    assert refused.value.reason is Reason.GUEST_PROTOCOL
