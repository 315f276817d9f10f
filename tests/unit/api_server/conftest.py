from pathlib import Path

import pytest

from ingle.api_server.host.tool import Tools


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """Tools of a server whose state is this test's own directory, by which its leftovers could be told."""
    return Tools(tmp_path)
