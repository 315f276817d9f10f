"""The client in docs/clients.md, as it stands there, against a real server and agent."""

import asyncio
import re
import sys
from pathlib import Path

from contract.cli.conftest import Ingle

_DOCUMENT = Path(__file__).parents[3] / "docs/clients.md"


async def test_the_example_does_what_it_says(with_an_agent: tuple[Ingle, int], tmp_path: Path) -> None:
    code, *_ = re.findall(r"^```python\n(.*?)^```", _DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    code = code.replace("/tmp/greeting", f"{tmp_path}/greeting")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env=with_an_agent[0].environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, said = await process.communicate()
    assert (out, process.returncode) == (b"6\nHELLO\n0\nHELLO\n", 0), said.decode()
    assert (tmp_path / "greeting").read_bytes() == b"hello\n"
