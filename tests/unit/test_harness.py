"""What the tests are run with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1)


def run_tests(directory: Path, source: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run tests of that text with our conftest, by a shell that did something before."""
    (directory / "test_it.py").write_text(source)
    pytest = f"exec {sys.executable} -m pytest -c /dev/null -p conftest -p no:cacheprovider -q test_it.py"
    return subprocess.run(
        ["sh", "-c", f"{before}{pytest}"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_tests_start_heeds_the_signals_that_were_ignored_for_them(tmp_path: Path) -> None:
    names = " ".join(number.name.removeprefix("SIG") for number in IGNORED)
    source = f"""
import subprocess
def test_child():
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    (mask,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:")]
    assert not [number for number in {[int(number) for number in IGNORED]} if mask >> number - 1 & 1]
"""
    ran = run_tests(tmp_path, source, f"trap '' {names}; ")
    assert ran.returncode == 0, ran.stdout


def test_a_failure_that_cannot_be_shown_ends_no_run(tmp_path: Path) -> None:
    source = """
def test_first():
    __tracebackhide__ = lambda info: 1 / 0
    assert False
def test_second():
    pass
"""
    ran = run_tests(tmp_path, source)
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout
    assert "INTERNALERROR" not in ran.stdout
