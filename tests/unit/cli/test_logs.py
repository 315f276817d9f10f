"""The times in front of lines, however these are cut."""

from itertools import product

from google.protobuf.timestamp_pb2 import Timestamp

from ingle.cli.commands.vm.logs import _Stamper
from ingle.v1 import vm_pb2

TEXT = b"a\n\nb"


def test_each_line_has_one_time_wherever_it_is_cut() -> None:
    for cuts in product((False, True), repeat=len(TEXT) - 1):
        pieces = [TEXT[:1]]
        for byte, cut in zip(TEXT[1:], cuts, strict=True):
            if cut:
                pieces.append(b"")
            pieces[-1] += bytes((byte,))
        stamper = _Stamper()
        time = Timestamp(seconds=1_795_987_800, nanos=5_999_000)
        said = [stamper.stamped(vm_pb2.StreamVmLogsResponse(data=piece, time=time)) for piece in pieces]
        stamp = b"2026-11-29T21:30:00.005Z "
        assert b"".join(said) == stamp + b"a\n" + stamp + b"\n" + stamp + b"b"


def test_a_line_has_the_time_of_its_beginning() -> None:
    stamper = _Stamper()
    parts = [(b"one ", 0), (b"line\n", 1), (b"next\n", 2)]
    said = [
        stamper.stamped(vm_pb2.StreamVmLogsResponse(data=data, time=Timestamp(seconds=time))) for data, time in parts
    ]
    assert b"".join(said) == b"1970-01-01T00:00:00.000Z one line\n1970-01-01T00:00:02.000Z next\n"
