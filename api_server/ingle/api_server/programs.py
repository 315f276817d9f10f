"""Where our own programs in Go are, which are static and built for one architecture each."""

import platform
from importlib.resources import files
from pathlib import Path

from ingle.api_server.model.errors import HostProblem, Reason

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def go_architecture() -> str:
    """This host's architecture, as Go and the registries of images call it."""
    return _GO_NAMES.get(platform.machine(), platform.machine())


def agent_binary() -> Path:
    """The guest agent for this host's architecture. Raises HostProblem(DEPENDENCY_MISSING)."""
    return _program("ingle-agent", "the guest agent", "make agent")


def image_puller() -> Path:
    """What brings images from registries. Raises HostProblem(DEPENDENCY_MISSING)."""
    return _program("ingle-image-puller", "the image puller", "make puller")


def _program(program: str, called: str, remedy: str) -> Path:
    """From the wheel, or as make built it in a checkout."""
    name = f"{program}-{go_architecture()}"
    package = Path(str(files("ingle.api_server")))
    places = (package / "programs" / name, package.parents[2] / "build" / name)
    for place in places:
        if place.is_file():
            return place
    raise HostProblem(
        Reason.DEPENDENCY_MISSING, f"{called} {name} is neither installed nor built", f"{remedy}, or reinstall"
    )
