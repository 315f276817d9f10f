"""Code that root shall run must be root's alone."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.cli.errors import CliError
from ingle.cli.system import code

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of root's")


@pytest.fixture
def environment() -> Iterator[Path]:
    """Below /tmp, which others can write to, but where the sticky bit keeps them from replacing what is root's."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "lib").mkdir(mode=0o755)
        (root / "lib" / "module.py").write_text("")
        (root / "lib" / "module.py").chmod(0o644)
        (root / "link").symlink_to("lib")
        yield root


def test_what_only_root_can_change_is_fine(environment: Path) -> None:
    code.check(environment)


def test_a_file_of_somebody_else_is_refused(environment: Path) -> None:
    os.chown(environment / "lib" / "module.py", 1234, -1)
    with pytest.raises(CliError, match=r"module\.py belongs to uid 1234"):
        code.check(environment)


def test_a_link_of_somebody_else_is_refused(environment: Path) -> None:
    os.lchown(environment / "link", 1234, -1)
    with pytest.raises(CliError, match=r"link belongs to uid 1234"):
        code.check(environment)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_what_others_can_write_is_refused(environment: Path, mode: int) -> None:
    (environment / "lib" / "module.py").chmod(mode)
    with pytest.raises(CliError, match="can be written by others"):
        code.check(environment)


def test_a_directory_above_that_others_can_write_is_refused(environment: Path) -> None:
    environment.chmod(0o777)
    with pytest.raises(CliError, match="can be written by others"):
        code.check(environment / "lib")


def test_what_the_service_cannot_read_is_refused(environment: Path) -> None:
    environment.chmod(0o700)
    with pytest.raises(CliError, match="can't be read by the service's user"):
        code.check(environment / "lib")
    environment.chmod(0o755)
    (environment / "lib" / "module.py").chmod(0o600)
    with pytest.raises(CliError, match="can't be read by the service's user"):
        code.check(environment)


def test_the_remedy_says_how_to_install_as_root(environment: Path) -> None:
    os.chown(environment, 1234, -1)
    with pytest.raises(CliError) as refused:
        code.check(environment)
    assert "sudo python3 -m venv /opt/ingle" in refused.value.failures[0].remedy
