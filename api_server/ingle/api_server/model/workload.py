"""What a VM's image says of how it is to be run, and what that means for a command in its guest: docker's rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import ExecSpec, SessionProgram
from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.signals import signal_number

_C = TypeVar("_C", ExecSpec, SessionProgram)


@dataclass(frozen=True, slots=True)
class Workload:
    """Of an image from a registry, as it was when the VM was made; all of it is empty for any other image."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    user: str = ""
    directory: str = ""
    """Absolute, or empty."""

    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()

    @staticmethod
    def of(config: ImageConfig | None) -> "Workload":
        """What that image says; None says nothing."""
        if config is None:
            return Workload()
        said = (variable.partition("=") for variable in config.environment)
        return Workload(
            entrypoint=config.entrypoint,
            command=config.command,
            environment=MappingProxyType({name: value for name, _, value in said if name}),
            user=config.user,
            directory=f"/{config.directory.lstrip('/')}",
            stop_signal=config.stop_signal,
            exposed_ports=config.exposed_ports,
        )

    def completed(self, wish: _C) -> _C:
        """A command, or a terminal, with what it leaves to the image. Raises InvalidArgument where that is nothing."""
        completed = replace(
            wish,
            argv=self.argv(wish.argv) if wish.with_entrypoint else wish.argv,
            user=wish.user or self.user,
            working_directory=wish.working_directory or self.directory,
        )
        if not wish.with_entrypoint or not isinstance(completed, ExecSpec):
            return completed
        if not completed.argv:
            raise InvalidArgument(
                "argv is empty, and the VM's image has neither an entrypoint nor a command: name a command to run",
                "ingle vm run --help",
                field="argv",
            )
        return replace(completed, stop_signal=signal_number(self.stop_signal))

    def argv(self, words: Sequence[str]) -> tuple[str, ...]:
        """What `docker run IMAGE WORDS...` runs."""
        return (*self.entrypoint, *(words or self.command))
