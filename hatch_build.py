"""Build hook: a wheel carries the guest agents of both architectures at ingle/api_server/agents/ingle-agent-ARCH."""

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHITECTURES = ("amd64", "arm64")


class AgentBuildHook(BuildHookInterface[Any]):
    """Builds them with scripts/build_agent.sh. An editable install has none: there the server takes build/."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs. Raises CalledProcessError when Go can't build an agent."""
        if version == "editable":
            return
        root = Path(self.root)
        for architecture in ARCHITECTURES:
            subprocess.run([root / "scripts/build_agent.sh", architecture], check=True)
            name = f"ingle-agent-{architecture}"
            build_data["force_include"][str(root / "build" / name)] = f"ingle/api_server/agents/{name}"
