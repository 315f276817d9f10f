"""Prints a coverage JSON report as one line per package: `python scripts/coverage_by_package.py coverage.json`."""

import json
import sys
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Lines(NamedTuple):
    """Statements, and those of them that ran."""

    all: int
    run: int

    def __str__(self) -> str:
        return f"{self.run:>6} of {self.all:>6} lines  {100 * self.run / max(self.all, 1):5.1f} %"


def package(file: str) -> str:
    """ingle/api_server/rpc/vm.py is of api_server.rpc."""
    parts = PurePosixPath(file).parent.parts
    return ".".join(parts[parts.index("ingle") + 1 :])


def main(report: Path) -> None:
    """Print the table."""
    packages: dict[str, list[Lines]] = defaultdict(list)
    for file, data in json.loads(report.read_text())["files"].items():
        summary = data["summary"]
        packages[package(file)].append(Lines(summary["num_statements"], summary["covered_lines"]))
    everything = [lines for files in packages.values() for lines in files]
    for name, files in [*sorted(packages.items()), ("total", everything)]:
        print(f"{name:<32} {Lines(*map(sum, zip(*files, strict=True)))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
