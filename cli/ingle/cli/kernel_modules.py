"""Which of a kernel's modules a guest needs: a distribution has thousands, and some ten are worth sending."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

_INDEX, _BUILTIN = "modules.dep", "modules.builtin"


def needed_of(directory: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """What to send of a lib/modules/RELEASE directory, and under which names: the modules `names`, and all that they
    need; everything where no modules.dep tells what that is."""
    index = directory / _INDEX
    if not index.is_file():
        return [(directory, "modules")]
    paths, needs = _read(index)
    chosen: dict[str, Path] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in paths and name not in chosen:
            chosen[name] = directory / paths[name]
            pending += needs[name]
    files = [index, *(path for path in (directory / _BUILTIN,) if path.is_file()), *chosen.values()]
    return [
        (file.resolve(), f"modules/{file.relative_to(directory)}") for file in files if file.is_relative_to(directory)
    ]


def _read(index: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """By module name, its file and the names that it needs; see modules.dep(5)."""
    paths: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    for line in index.read_text("utf-8", "surrogateescape").splitlines():
        path, colon, needed = line.partition(":")
        if colon:
            paths[_name(path)] = path
            needs[_name(path)] = [_name(need) for need in needed.split()]
    return paths, needs


def _name(path: str) -> str:
    return PurePosixPath(path).name.partition(".")[0].replace("-", "_")
