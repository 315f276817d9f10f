"""Find out how the guest's instructions will run."""

from collections.abc import Awaitable, Callable

from ingle.api_server.model.vm import Acceleration, Kernel, Vm
from ingle.api_server.steps.target import Start


class ChooseAcceleration:
    """The first time with a kernel, and where there is a choice, this boots a probe guest."""

    name = "acceleration"
    text = "choosing KVM or TCG"

    def __init__(self, choose: Callable[[Vm, Kernel], Awaitable[Acceleration]]) -> None:
        self._choose = choose

    async def run(self, target: Start) -> None:
        target.acceleration = await self._choose(target.vm, target.kernel)
