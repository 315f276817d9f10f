"""Where the guest agent's binary is."""

import platform
from importlib.resources import files
from pathlib import Path

from ingle.api_server.model.errors import HostProblem, Reason

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def agent_binary() -> Path:
    """The static agent for this host's architecture: from the wheel, or as `make agent` built it in a checkout.

    Raises HostProblem(DEPENDENCY_MISSING)."""
    name = f"ingle-agent-{_GO_NAMES.get(platform.machine(), platform.machine())}"
    package = Path(str(files("ingle.api_server")))
    places = (package / "agents" / name, package.parents[2] / "build" / name)
    for place in places:
        if place.is_file():
            return place
    raise HostProblem(
        Reason.DEPENDENCY_MISSING, f"the guest agent {name} is neither installed nor built", "make agent, or reinstall"
    )
