"""A file that is kept as what differs from others, and made again of them."""

import os
import random
from pathlib import Path

import pytest

from ingle.api_server.host import block_delta
from ingle.api_server.host.block_delta import Stack
from ingle.api_server.host.threads import Stop, Stopped

BLOCK = 4096


def changed(random_: random.Random, content: bytes, size: int) -> bytes:
    """Some blocks anew, some zeros, another size."""
    new = bytearray(content.ljust(size, b"\0")[:size])
    for _ in range(random_.randrange(12)):
        at, length = random_.randrange(size), random_.randrange(1, 5 * BLOCK)
        new[at : at + length] = random_.choice((bytes, random_.randbytes))(min(length, size - at))
    return bytes(new)


def put(path: Path, content: bytes) -> Path:
    """Zeros as holes."""
    with path.open("xb") as file:
        for at in range(0, len(content), BLOCK):
            if content[at : at + BLOCK].strip(b"\0"):
                file.seek(at)
                file.write(content[at : at + BLOCK])
        file.truncate(len(content))
    return path


@pytest.mark.parametrize("seed", range(30))
def test_each_of_a_chain_comes_out_as_it_went_in(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    content = changed(random_, b"", random_.randrange(1, 60 * BLOCK))
    stack = Stack(put(tmp_path / "0", content))
    contents = [content]
    stacks = [stack]
    for number in range(1, 9):
        content = changed(random_, content, max(1, len(content) + random_.choice((0, 0, -5000, 7000))))
        whole = put(tmp_path / str(number), content)
        delta = tmp_path / f"{number}.delta"
        block_delta.write(Stop(), whole, stack, delta)
        whole.unlink()
        stack = Stack(stack.whole, (*stack.deltas, delta))
        contents.append(content)
        stacks.append(stack)
    for content, stack in zip(contents, stacks, strict=True):
        block_delta.compose(Stop(), stack, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == content
        (tmp_path / "out").unlink()


def test_what_is_the_same_takes_no_room(tmp_path: Path) -> None:
    content = os.urandom(1000 * BLOCK)
    base = put(tmp_path / "base", content)
    new = put(
        tmp_path / "new", content[: 500 * BLOCK] + os.urandom(BLOCK) + bytes(100 * BLOCK) + content[601 * BLOCK :]
    )
    block_delta.write(Stop(), new, Stack(base), tmp_path / "delta")
    assert BLOCK < (tmp_path / "delta").stat().st_size < 2 * BLOCK
    block_delta.compose(Stop(), Stack(base, (tmp_path / "delta",)), tmp_path / "out")
    assert (tmp_path / "out").stat().st_blocks <= new.stat().st_blocks, "zeros are holes"


def test_what_does_not_belong_together_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    base = put(tmp_path / "base", os.urandom(50 * BLOCK))
    new = put(tmp_path / "new", base.read_bytes()[:-BLOCK] + os.urandom(BLOCK))
    delta = tmp_path / "delta"
    block_delta.write(Stop(), new, Stack(base), delta)
    whole = delta.read_bytes()
    with base.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(OSError, match="do not belong together"):
        block_delta.compose(Stop(), Stack(base, (delta,)), tmp_path / "out")
    for cut in (0, 10, BLOCK, len(whole) - 1):
        delta.write_bytes(whole[:cut])
        with pytest.raises(OSError, match="it is no delta"):
            block_delta.compose(Stop(), Stack(base, (delta,)), tmp_path / "out")
    for at in range(BLOCK, len(whole)):
        delta.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(OSError, match=r"no delta|do not belong together"):
            block_delta.compose(Stop(), Stack(base, (delta,)), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta", "new"]


def test_it_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    base, new = put(tmp_path / "base", os.urandom(50 * BLOCK)), put(tmp_path / "new", os.urandom(50 * BLOCK))
    block_delta.write(Stop(), new, Stack(base), tmp_path / "delta")
    stop = Stop()
    stop.ask()
    with pytest.raises(Stopped):
        block_delta.write(stop, new, Stack(base), tmp_path / "other")
    with pytest.raises(Stopped):
        block_delta.compose(stop, Stack(base, (tmp_path / "delta",)), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta", "new"]
