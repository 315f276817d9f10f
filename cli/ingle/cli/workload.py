"""What the image of a VM says of how it is to be run, for people."""

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ingle.v1 import healthcheck_pb2, vm_pb2


class Says(Protocol):
    """The configuration of an image, or what a VM has of it."""

    @property
    def entrypoint(self) -> Sequence[str]: ...

    @property
    def command(self) -> Sequence[str]: ...


def runs_by_itself(says: Says) -> bool:
    """Whether there is something to run where nothing is said."""
    return bool(says.entrypoint or says.command)


def details(says: "vm_pb2.Workload") -> Iterator[tuple[str, str]]:
    """A line each; none for an image that says nothing."""
    lines = (
        ("entrypoint", shlex.join(says.entrypoint)),
        ("command", shlex.join(says.command)),
        ("environment", "\n".join(f"{name}={value}" for name, value in sorted(says.environment.items()))),
        ("user", says.user),
        ("directory", says.working_directory),
        ("exposes", " ".join(says.exposed_ports)),
        ("stop signal", says.stop_signal),
    )
    return (line for line in lines if line[1])


def asked(check: "healthcheck_pb2.Healthcheck") -> str:
    """What a healthcheck runs, as it may be typed."""
    kind, *command = check.test or [""]
    return " ".join(command) if kind == "CMD-SHELL" else shlex.join(command) if kind == "CMD" else kind.lower()
