"""What is worth sending of a kernel's lib/modules/RELEASE: its modules, and the lists of them."""

import os
from pathlib import Path, PurePosixPath

_LISTS = "modules."  # .dep, .builtin, .order …


def modules_of(directory: Path) -> list[tuple[Path, str]]:
    """The files to send, and under which names: a link to one is sent as what it leads to, and the kernel's sources,
    to which a link leads as well, are not."""
    found = []
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            module = ".ko" in PurePosixPath(name).suffixes
            listed = name.startswith(_LISTS) and path.parent == directory
            if (module or listed) and path.is_file():
                found.append((path.resolve(), f"modules/{path.relative_to(directory)}"))
    return sorted(found, key=lambda file: file[1])
