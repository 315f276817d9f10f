"""Which VMs a caller wants to hear of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingle.api_server.model.labels import has_all
from ingle.api_server.model.vm import Vm, VmState


@dataclass(frozen=True, slots=True)
class VmFilter:
    """Those that have all of the labels, and are in one of the states where any is named."""

    labels: Mapping[str, str | None] = field(default_factory=dict)
    """As of model.labels.has_all."""
    states: frozenset[VmState] = frozenset()

    def takes(self, vm: Vm) -> bool:
        """Whether it is one of them."""
        if self.states and vm.state not in self.states:
            return False
        return has_all(vm.settings.labels, self.labels)
