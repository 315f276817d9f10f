"""What a console said and when, over gRPC: of a VM whose engine is a stand-in, over servers that are killed."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from contract.test_engines import create, delete
from harness import Server, refused
from ingle.api_server.host import log_times
from ingle.v1 import vm_pb2


def told(server: Server, **fields: object) -> list[tuple[bytes, datetime]]:
    request = vm_pb2.StreamVmLogsRequest(vm="talks", **fields)  # type: ignore[arg-type]
    return [(piece.data, piece.time.ToDatetime(UTC)) for piece in server.vms.StreamVmLogs(request, timeout=60)]


def stamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def seen(log: Path) -> None:
    """Return once a server has looked at all that is there."""
    deadline = time.monotonic() + 60
    while log_times.read(log, log.stat().st_size).end < log.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def say(log: Path, line: bytes) -> None:
    with log.open("ab") as guest:
        guest.write(line)


def test_lines_keep_their_times_over_servers_and_boots_and_are_found_by_them(red_server: Server) -> None:
    before = datetime.now(UTC)
    vm = create(red_server, "talks", "red")
    console = red_server.state / "vms" / vm.id / "console.log"
    seen(console)
    say(console, b"while it looked\n")
    seen(console)
    red_server.kill()
    say(console, b"while nobody ")
    say(console, b"looked\n")
    red_server.start()
    seen(console)
    say(console, b"with the next\n")
    lines = told(red_server)
    assert [data for data, _ in lines] == [
        b"fake kernel: booting\n",
        b"while it looked\n",
        b"while nobody looked\n",
        b"with the next\n",
    ]
    times = [moment for _, moment in lines]
    assert before < times[0] < times[1] < times[2] < times[3] < datetime.now(UTC)
    red_server.vms.RestartVm(vm_pb2.RestartVmRequest(vm="talks"))
    # The last line, which nobody had looked at yet, is seen with what came soon.
    assert told(red_server)[:3] == lines[:3]
    assert told(red_server, until=stamp(times[2])) == lines[:2]
    assert told(red_server, until=stamp(times[2]), tail_lines=1) == lines[1:2]
    assert told(red_server, since=stamp(times[1]), until=stamp(times[2])) == lines[1:2]
    behind = b"".join(data for data, _ in told(red_server, since=stamp(times[2])))
    assert behind.startswith(b"while nobody looked\nwith the next\n")
    assert behind.endswith(b"fake kernel: booting\n")
    assert told(red_server, since=stamp(datetime.now(UTC))) == []
    delete(red_server, "talks")


def test_following_ends_at_its_time(red_server: Server) -> None:
    create(red_server, "talks", "red")
    until = datetime.now(UTC)
    lines = told(red_server, follow=True, until=stamp(until))
    assert b"".join(data for data, _ in lines) == b"fake kernel: booting\n"
    assert all(moment < until for _, moment in lines)
    delete(red_server, "talks")


@pytest.mark.parametrize("field", ["since", "until"])
def test_a_time_that_no_calendar_has_is_refused(red_server: Server, field: str) -> None:
    assert refused(told, red_server, **{field: Timestamp(seconds=2**62)}).reason == "INVALID_ARGUMENT"
