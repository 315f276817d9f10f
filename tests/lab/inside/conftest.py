"""What tests in the lab start from. This runs as root, in the lab."""

import os
import pwd
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

INGLE = "/opt/ingle/bin/ingle"
"""Of the code that an install runs from."""

SECONDS = 180
"""Nothing takes so long; a command that does is killed, and its test fails."""


@dataclass(frozen=True)
class User:
    """A user of the lab, logged in."""

    name: str

    def run(self, *argv: str, code: int = 0, stdin: str | None = None) -> str:
        """Run a command as a login of this user would, assert its exit code, and answer its stdout."""
        entry = pwd.getpwnam(self.name)
        env = {
            "HOME": entry.pw_dir,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/ingle/bin",
            "USER": self.name,
            "XDG_RUNTIME_DIR": f"/run/user/{entry.pw_uid}",
            # What is measured by coverage stays measured.
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        }
        ended = subprocess.run(
            ["/usr/sbin/runuser", "-u", self.name, "--", *argv],
            cwd=entry.pw_dir,
            env=env,
            check=False,
            text=True,
            input=stdin or "",
            capture_output=True,
            timeout=SECONDS,
        )
        said = f"{shlex.join(argv)}: exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        assert ended.returncode == code, said
        return ended.stdout

    @property
    def state(self) -> Path:
        """Where this user's ingle keeps its state."""
        return Path(pwd.getpwnam(self.name).pw_dir) / ".local/state/ingle"


def lab_run(*argv: str, code: int | None = 0) -> str:
    """Run a command as root, assert its exit code, and answer its stdout. `code` None: any will do."""
    ended = subprocess.run(argv, check=False, text=True, capture_output=True, timeout=SECONDS)
    assert code in {None, ended.returncode}, (
        f"{shlex.join(argv)}: exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    )
    return ended.stdout


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
def dev(kernel: Path) -> Iterator[User]:
    """A user in the group kvm, whose ingle has kernel and image, from files: nothing is fetched."""
    user = User("dev")
    # A login that lasts: /run/user/UID is there as long.
    lab_run("loginctl", "enable-linger", user.name)
    release = kernel.name.removeprefix("vmlinuz-")
    user.run("ingle", "kernel", "import", str(kernel), "--modules", f"/lib/modules/{release}", "--name", "debian")
    user.run("ingle", "image", "register", "--rootfs", "/opt/lab/debian.ext4", "--name", "debian:bookworm")
    yield user
    user.run("ingle", "server", "stop")
    assert subprocess.run(["pgrep", "-a", "-u", user.name, "qemu|ingle"], check=False).returncode == 1


@pytest.fixture(scope="session")
def member(kernel: Path) -> User:
    """A user of the group ingle, on a machine where it is installed and has kernel and image. An install takes half a
    minute: tests with this come last, and nobody removes what goes with the lab."""
    lab_run(INGLE, "system", "install")
    lab_run("usermod", "--append", "--groups", "ingle", "other")
    user = User("other")
    release = kernel.name.removeprefix("vmlinuz-")
    user.run("ingle", "kernel", "import", str(kernel), "--modules", f"/lib/modules/{release}", "--name", "debian")
    user.run("ingle", "image", "register", "--rootfs", "/opt/lab/debian.ext4", "--name", "debian:bookworm")
    return user
