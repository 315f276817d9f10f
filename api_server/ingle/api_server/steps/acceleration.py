"""Find out whether KVM works here."""

from ingle.api_server.ports.engine import Engine
from ingle.api_server.steps.target import Start


class ChooseAcceleration:
    """The first time for a kernel this boots a probe guest."""

    name = "acceleration"
    text = "choosing KVM or TCG"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, target: Start) -> None:
        target.acceleration = await self._engine.acceleration(target.vm.acceleration, target.kernel)
