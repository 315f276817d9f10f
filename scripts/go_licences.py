"""The licences of the Go modules that are built into our programs, for the Debian package's copyright file."""

import json
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PROGRAMS: Mapping[str, str] = {"ingle-agent": "guest_agent", "ingle-image-puller": "image_puller"}
_TEXTS = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "PATENTS*")
_OURS = "ingle.dev/"


@dataclass(frozen=True, order=True)
class Module:
    """A module that a program has in it; `texts` by the names of their files."""

    path: str
    version: str
    program: str
    texts: tuple[tuple[str, str], ...]


def modules() -> list[Module]:
    """Of all programs. Raises ValueError for a module without a licence, CalledProcessError."""
    return sorted(module for program, place in PROGRAMS.items() for module in _of(program, place))


def stanzas() -> str:
    """What goes behind the copyright file that is ours: machine-readable, as Debian has it."""
    return "".join(map(_stanza, modules()))


def _of(program: str, place: str) -> Iterator[Module]:
    form = '{{with .Module}}{"path": "{{.Path}}", "version": "{{.Version}}", "directory": "{{.Dir}}"}{{end}}'
    go, module = str(REPOSITORY / "scripts/go.sh"), str(REPOSITORY / place)
    command = [go, "list", "-C", module, "-deps", "-f", form, f"./cmd/{program}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in sorted({line for line in said.splitlines() if line}):
        found = json.loads(line)
        if not found["path"].startswith(_OURS):
            yield Module(found["path"], found["version"], program, _texts(Path(found["directory"]), found["path"]))


def _texts(directory: Path, module: str) -> tuple[tuple[str, str], ...]:
    found = sorted({path for pattern in _TEXTS for path in directory.glob(pattern) if path.is_file()})
    if not any(not path.name.startswith(("NOTICE", "PATENTS")) for path in found):
        raise ValueError(f"{module}: no licence in {directory.name}")
    return tuple((path.name, path.read_text()) for path in found)


def _stanza(module: Module) -> str:
    text = "\n\n".join(f"{name}:\n\n{content.strip()}" for name, content in module.texts)
    copyrights = [line.strip() for line in text.splitlines() if line.strip().lower().startswith("copyright ")]
    # An empty line is a dot, and none begins at the margin.
    body = "\n".join(f" {line}" if line.strip() else " ." for line in textwrap.dedent(text).splitlines())
    name = f"{module.path}-{module.version}"
    return (
        f"\nFiles: usr/lib/ingle/*/{module.program}-*\n"
        f"Copyright: {copyrights[0] if copyrights else 'see the licence'}\n"
        f"License: {name}\n"
        f"Comment: {module.path} {module.version} is built into it.\n"
        f"\nLicense: {name}\n{body}\n"
    )
