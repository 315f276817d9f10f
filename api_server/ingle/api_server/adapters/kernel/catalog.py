"""The kernels that can be pulled: catalog.toml, which is beside this file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ingle.api_server.ports.sources import CatalogEntry

_FILE = Path(__file__).with_name("catalog.toml")


@dataclass(frozen=True, slots=True)
class DebianKernel:
    """One that apt brings. `verified` tells people who vouches for it."""

    name: str
    description: str
    package: str
    verified: str

    @property
    def entry(self) -> CatalogEntry:
        """As people read it."""
        return CatalogEntry(self.name, f"{self.description}; verified {self.verified}")


@cache
def kernels() -> Mapping[str, DebianKernel]:
    """By name."""
    tables = tomllib.loads(_FILE.read_text("utf-8"))
    return {name: DebianKernel(name=name, **table) for name, table in tables.items()}
