"""What tests in the lab start from. This runs as root, in the lab."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.inside.commands import Preloaded, User, lab_run, with_kernel_and_image

PREFIX = Path("/opt/ingle")
INGLE = str(PREFIX / "bin/ingle")
"""Of the code that an install runs from."""


def package() -> Path:
    """The Debian package."""
    (path,) = (Path(__file__).parents[3] / "dist").glob("*.deb")
    return path


@pytest.fixture(scope="module")
def unlinked() -> Iterator[None]:
    """The links to what is in /opt/ingle are away: they would run in a package's stead."""
    links = {path: path.readlink() for path in Path("/usr/local/bin").glob("ingle*")}
    for path in links:
        path.unlink()
    yield
    for path, target in links.items():
        path.symlink_to(target)


@pytest.fixture(scope="session")
def kernel() -> Path:
    """The lab's own kernel, as its package has it."""
    (path,) = Path("/boot").glob("vmlinuz-*")
    return path


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    """`ingle` of /opt/ingle."""
    commands = Preloaded(str(PREFIX / "bin/python3"), tmp_path_factory.mktemp("preloaded"))
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def dev(kernel: Path, preloaded: Preloaded) -> Iterator[User]:
    """A user in the group kvm, whose ingle has kernel and image."""
    user = User("dev", preloaded)
    # A login that lasts: /run/user/UID is there as long.
    lab_run("loginctl", "enable-linger", user.name)
    # A guest that boots in the background takes half of what the lab's processor can do: who wants one asks for it.
    user.run("ingle", "config", "set", "warm", "false")
    yield with_kernel_and_image(user, kernel)
    user.run("ingle", "server", "stop")
    assert subprocess.run(["pgrep", "-a", "-u", user.name, "qemu|ingle"], check=False).returncode == 1


@pytest.fixture(scope="session")
def member(kernel: Path, preloaded: Preloaded) -> User:
    """A user of the group ingle, on a machine where it is installed and has kernel and image. An install takes half a
    minute: tests with this have a lab for themselves, and nobody removes what goes with it."""
    lab_run(INGLE, "system", "install")
    lab_run("usermod", "--append", "--groups", "ingle", "other")
    root = with_kernel_and_image(User("root", preloaded), kernel)
    # Firecracker is here, too: tests of that one, and of what is taken by itself, ask for it.
    root.run("ingle", "config", "set", "engine", "qemu")
    return User("other", preloaded)
