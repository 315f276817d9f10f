"""What the Debian package holds beside the code and its dependencies. make_deb.sh calls it.

deb_files.py TREE VERSION ARCHITECTURE    TREE: what becomes /, with site-packages in it already"""

import gzip
import hashlib
import os
import shlex
import shutil
import sys
import textwrap
import tomllib
from email.utils import formatdate
from pathlib import Path

from go_licences import stanzas

from ingle.cli.completion_scripts import SCRIPTS as SHELL_SCRIPTS
from ingle.cli.manual import page
from ingle.cli.system.files import BY_PACKAGE, PACKAGED, UNITS, managed_files
from ingle.cli.system.installation import DIRECTORIES, USER
from ingle.version import VERSION

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/ingle",
    "zsh": "usr/share/zsh/vendor-completions/_ingle",
    "fish": "usr/share/fish/vendor_completions.d/ingle.fish",
}
# Beside scripts/debian-packages.txt: what the code links with and calls. python3-venv is for checkouts.
NEEDED = ("libc6 (>= 2.36)", "libnftables1", "libstdc++6", "passwd", "systemd")
NOT_NEEDED = {"python3-venv"}
START = """# Built in: nothing to load before an interrupt is silent.
from _signal import SIG_DFL, SIG_IGN, SIGINT, getsignal, signal

if getsignal(SIGINT) != SIG_IGN:
    signal(SIGINT, SIG_DFL)

import sys

from {module} import {function}

sys.exit({function}())
"""


def main(tree: Path, version: str, architecture: str, maintainer: str) -> None:
    """Write all of it. Raises OSError."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    _make_environment(tree / PACKAGED.relative_to("/"), project["scripts"])
    _drop_other_programs(tree, architecture)
    for file in managed_files(PACKAGED, USER, layout=BY_PACKAGE, root=tree):
        file.write()
    for shell, place in COMPLETIONS.items():
        _write(tree / place, SHELL_SCRIPTS[shell])
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/ingle").symlink_to("../lib/ingle/bin/ingle")
    _write_documents(tree, version, maintainer)
    fields = {
        "Package": "ingle",
        "Version": version,
        "Architecture": architecture,
        "Maintainer": maintainer,
        "Installed-Size": str(_kibibytes(tree)),
        "Depends": ", ".join(_dependencies()),
        "Section": "admin",
        "Priority": "optional",
        "Description": _description(project["description"]),
    }
    _write(tree / "DEBIAN/md5sums", _sums(tree))
    _write(tree / "DEBIAN/control", "".join(f"{name}: {value}\n" for name, value in fields.items()))
    for name in SCRIPTS:
        script = (REPOSITORY / "scripts/deb" / name).read_text()
        values = {"PREFIX": PACKAGED, "USER": USER, "UNITS": shlex.join(UNITS), "DIRECTORIES": _words(DIRECTORIES)}
        for key, value in values.items():
            script = script.replace(f"@{key}@", str(value))
        _write(tree / "DEBIAN" / name, script, executable=True)


def _make_environment(environment: Path, scripts: dict[str, str]) -> None:
    """A virtual environment of the system's Python around site-packages."""
    _write(environment / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    (environment / "bin").mkdir()
    (environment / "bin/python3").symlink_to("../../../bin/python3")
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        start = START.format(module=module, function=function)
        _write(environment / "bin" / name, f"#!{PACKAGED}/bin/python3\n{start}", executable=True)


def _drop_other_programs(tree: Path, architecture: str) -> None:
    for program in tree.glob("**/api_server/programs/ingle-*"):
        if not program.name.endswith(f"-{architecture}"):
            program.unlink()


def _write_documents(tree: Path, version: str, maintainer: str) -> None:
    documents = tree / "usr/share/doc/ingle"
    when = formatdate(int(os.environ["SOURCE_DATE_EPOCH"]))
    changes = f"ingle ({version}) unstable; urgency=medium\n\n  * Built from a checkout.\n\n -- {maintainer}  {when}\n"
    documents.mkdir(parents=True)
    (documents / "changelog.gz").write_bytes(gzip.compress(changes.encode(), mtime=0))
    ours = (REPOSITORY / "scripts/deb/copyright").read_text()
    _write(documents / "copyright", ours + stanzas())
    manual = tree / "usr/share/man/man1/ingle.1.gz"
    manual.parent.mkdir(parents=True)
    manual.write_bytes(gzip.compress(page(VERSION).encode(), mtime=0))
    overrides = tree / "usr/share/lintian/overrides/ingle"
    overrides.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / "scripts/deb/lintian-overrides", overrides)


def _dependencies() -> tuple[str, ...]:
    """Compiled modules fit one minor version of Python: that which builds."""
    major, minor = sys.version_info[:2]
    lines = (REPOSITORY / "scripts/debian-packages.txt").read_text().splitlines()
    listed = {name for line in lines if (name := line.partition("#")[0].strip())} - NOT_NEEDED
    return (
        f"python3 (>= {major}.{minor})",
        f"python3 (<< {major}.{minor + 1})",
        *sorted({*listed, *NEEDED}),
    )


def _description(sentence: str) -> str:
    """Summary: details."""
    summary, _, details = sentence.partition(": ")
    text = f"As a service for all users of a machine: {details}"
    return "\n".join((summary, *textwrap.wrap(text, 78, initial_indent=" ", subsequent_indent=" ")))


def _files(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def _kibibytes(tree: Path) -> int:
    return sum(-(-path.stat().st_size // 1024) for path in _files(tree))


def _sums(tree: Path) -> str:
    return "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in _files(tree)
    )


def _words(paths: tuple[Path, ...]) -> str:
    return shlex.join(str(path) for path in paths)


def _write(path: Path, content: str, *, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755 if executable else 0o644)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
