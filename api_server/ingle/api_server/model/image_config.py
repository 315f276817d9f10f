"""What an image from a registry says of how it is to be run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Docker's: `test` begins with NONE, CMD or CMD-SHELL; 0: the image doesn't say. Times in milliseconds."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


KERNEL_LABEL = "dev.ingle.kernel"
"""The label by which an image says which kernel it is to boot with, unless its caller says another."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """As its maker wrote it, bounded in size only."""

    digest: str
    """Of the manifest: what a registry knows the image by. Where docker's archive has none, of its configuration."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """NAME=VALUE each."""

    user: str = ""
    directory: str = ""
    exposed_ports: tuple[str, ...] = ()
    """PORT/PROTOCOL each."""

    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    healthcheck: Healthcheck | None = None

    @property
    def kernel(self) -> str:
        """The name of the kernel that its maker wants; empty: the maker doesn't say."""
        return self.labels.get(KERNEL_LABEL, "")
