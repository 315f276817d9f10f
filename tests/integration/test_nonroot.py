"""An ordinary user, made for this, types what the README says. Nothing of root's is in reach but Debian's packages, and
no file can be made set-id: so it is for the server of a system install."""

import os
import pwd
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

# What a machine's administrator may have set so that pip and git get through; all else of root's environment is gone.
_KEPT = (
    "PIP_",
    "SSL_",
    "GOPROXY",
    "GOSUMDB",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "REQUESTS_CA_BUNDLE",
)


class User:
    """Somebody with a home and no privileges."""

    def __init__(self, entry: pwd.struct_passwd) -> None:
        self.entry = entry
        self.home = Path(entry.pw_dir)

    def run(self, script: str, *, seconds: int = 900, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a shell script in the user's checkout."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
        return subprocess.run(
            [
                *("setpriv", f"--reuid={self.entry.pw_uid}", f"--regid={self.entry.pw_gid}", "--init-groups"),
                *("--no-new-privs", "--", "/usr/bin/python3", "tests/integration/restricted.py", "sh", "-ec", script),
            ],
            cwd=self.home / "ingle",
            env={**kept, "HOME": str(self.home), "PATH": "/usr/bin:/bin", "USER": self.entry.pw_name},
            input=data,
            capture_output=True,
            check=False,
            timeout=seconds,
        )

    def processes(self) -> list[str]:
        """What still runs, but for what has ended and waits for PID 1 to notice, which in a container it may never."""
        listed = subprocess.run(
            ["ps", "-o", "stat=,args=", "-u", str(self.entry.pw_uid)], capture_output=True, text=True, check=False
        )
        return [line for line in listed.stdout.splitlines() if not line.startswith("Z")]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    if os.getuid() != 0:
        pytest.fail("making a user takes root: run the tests as root, or deselect this file")
    name = f"ingle-test-{secrets.token_hex(3)}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    try:
        user = User(pwd.getpwnam(name))
        checkout = user.home / "ingle"
        checkout.mkdir()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT,
            capture_output=True,
            check=True,
        )
        archive = subprocess.run(
            ["tar", "--create", "--null", "--files-from=-", "--ignore-failed-read"],
            cwd=CHECKOUT,
            input=listed.stdout,
            capture_output=True,
            check=True,
        )
        subprocess.run(["tar", "--extract"], cwd=checkout, input=archive.stdout, check=True)
        subprocess.run(["chown", "-R", f"{name}:", checkout], check=True)
        yield user
        user.run(".venv/bin/ingle server stop")
        assert user.processes() == []
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(user: User) -> User:
    """After `make run`."""
    done = user.run("make run")
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-6000:]
    assert b"Debian GNU/Linux" in done.stdout
    return user


def test_make_run_works_for_an_ordinary_user(made: User) -> None:
    assert made.home.stat().st_uid == made.entry.pw_uid


def test_no_file_can_be_made_set_id(made: User) -> None:
    """As the image's own are, all the same: see below."""
    done = made.run(": > g; chmod 0755 g; chmod 4755 g")
    assert done.returncode == 1
    assert b"Operation not permitted" in done.stderr


def test_exit_codes_come_through(made: User) -> None:
    assert made.run(".venv/bin/ingle vm run --rm -- sh -c 'exit 42'").returncode == 42


def test_files_of_the_image_belong_to_whom_they_should(made: User) -> None:
    """The image was made without root, and yet root owns /etc/shadow in it."""
    done = made.run(".venv/bin/ingle vm run --rm -- stat -c '%U:%G %a' /etc/shadow /usr/bin/passwd /tmp")
    assert done.stdout.decode().splitlines() == ["root:shadow 640", "root:root 4755", "root:root 1777"]


def test_binary_data_goes_both_ways_unharmed(made: User) -> None:
    script = ": > f; head -c 5000000 /dev/urandom | tee f | .venv/bin/ingle vm run --rm -- cat | cmp - f"
    done = made.run(script)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


def test_two_runs_at_once_both_work(made: User) -> None:
    script = """
        .venv/bin/ingle vm run --rm -- echo one > one & first=$!
        .venv/bin/ingle vm run --rm -- echo two > two & second=$!
        wait $first; wait $second; cat one two
    """
    assert made.run(script).stdout == b"one\ntwo\n"


def test_nothing_is_left_and_nothing_of_it_is_open_to_others(made: User) -> None:
    assert made.run(".venv/bin/ingle vm list --json").stdout.split() == [b"[]"]
    state = made.home / ".local" / "state" / "ingle"
    assert state.stat().st_mode & 0o077 == 0
    assert list((state / "vms").iterdir()) == []
