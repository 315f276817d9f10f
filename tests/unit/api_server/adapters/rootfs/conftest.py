from pathlib import Path

import pytest

from ingle.api_server.adapters.rootfs import RootFileSystems
from ingle.api_server.host.tool import Tools
from ingle.api_server.ports.sources import ImageSource


@pytest.fixture
def source(tools: Tools) -> ImageSource:
    return RootFileSystems(tools)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "into"
    path.mkdir()
    return path
