"""What an image from a registry says of how it is to be run, for people."""

import shlex
from collections.abc import Iterator

from ingle.cli.workload import asked
from ingle.v1 import image_pb2


def details(config: image_pb2.ImageConfig) -> Iterator[tuple[str, str]]:
    """A line each of what is said; none for an image that is of no registry."""
    lines = (
        ("digest", config.digest),
        ("entrypoint", shlex.join(config.entrypoint)),
        ("command", shlex.join(config.command)),
        ("environment", "\n".join(config.environment)),
        ("user", config.user),
        ("directory", config.working_directory),
        ("ports", " ".join(config.exposed_ports)),
        ("stop signal", config.stop_signal),
        ("healthcheck", asked(config.healthcheck)),
        ("labels", "\n".join(f"{name}={value}" for name, value in sorted(config.labels.items()))),
    )
    return (line for line in lines if line[1])
