"""Files that Firecracker is to fill."""

import tempfile
from pathlib import Path

from ingle.api_server.adapters.firecracker.memory import Memory, writing


def test_what_it_fills_by_another_name_is_there_wherever_that_name_is(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        assert Path(elsewhere).stat().st_dev != tmp_path.stat().st_dev
        for number, place in enumerate((tmp_path, Path(elsewhere))):
            directory = tmp_path / str(number)
            directory.mkdir()
            with writing(directory, place / "seen") as memory:
                Memory(place / "seen").ram.write_bytes(b"ram")
            assert memory.ram.read_bytes() == b"ram"
            assert not (place / "seen").exists()
