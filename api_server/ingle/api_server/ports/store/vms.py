"""What is remembered of VMs."""

from collections.abc import Callable
from typing import Protocol

from ingle.api_server.model.caller import Caller, Reference
from ingle.api_server.model.event import StopCause
from ingle.api_server.model.quota import Use
from ingle.api_server.model.vm import Keeper, LiveVmm, Vm, VmSettings, VmState
from ingle.api_server.ports.network import Link


class VmStore(Protocol):
    """VMs: what was asked for, how they are, and whom they live for.

    What a change tells is an event, in its transaction; `op_id` is the operation that has done it."""

    watchers: list[Callable[[str], None]]
    """Called with a VM's id when it may have changed or be gone."""

    def now(self, vm_id: str) -> Vm | None:
        """The VM, at once; None when it is gone."""

    async def use(self, owner: int) -> Use:
        """What that user's VMs and snapshots take."""

    async def check_room(self, owner: int, more: Use) -> None:
        """Raise Conflict(QUOTA_EXCEEDED) when that user may not have that much more. So does whatever makes it more:
        insert, change, and a move to STARTING, as a part of it, so that of two at once one is too much."""

    async def check_again(self, vm: Vm) -> None:
        """Raise Conflict(QUOTA_EXCEEDED) when a VM that is up could not be started as this one once it is stopped."""

    async def insert(self, vm: Vm, token: bytes, keeper: Keeper | None = None) -> Vm:
        """Record a VM, and whom it lives for if for anybody. Answers it with a free slot of its network, which comes to
        be with the first VM in it, and goes with the last.

        Raises Conflict(NAME_TAKEN), HostProblem(ADDRESSES_EXHAUSTED), and NotFound when image or kernel went away."""

    async def change(self, vm: Vm, op_id: str = "") -> None:
        """Name and settings. What they were is remembered, and the name nobody else's, until the journal of the VM is
        closed or the VM is restored. Raises Conflict(NAME_TAKEN)."""

    async def changed(self, vm_id: str) -> Vm | None:
        """The VM, when something is remembered of it."""

    async def restore(self, vm_id: str, op_id: str = "") -> None:
        """Make it what it was. Nothing remembered is fine."""

    async def move(
        self,
        vm_id: str,
        state: VmState,
        *,
        vmm: LiveVmm | None = None,
        link: Link | None = None,
        error: str = "",
        token: bytes | None = None,
        cause: StopCause | None = None,
        op_id: str = "",
        completes: bool = False,
    ) -> Vm:
        """Change the state, by the state machine's rules (Conflict WRONG_STATE); running facts, and what connects it,
        only with RUNNING, and PAUSED of one that wakes. `token` replaces what its agent wants. `cause` is why it stops,
        when it does. `completes`: with it the operation's journal of the VM is closed."""

    async def note_sleep_error(self, vm_id: str, error: str, op_id: str = "") -> None:
        """What went wrong when it was to fall asleep or to wake: to be told of it until its state changes."""

    async def rest_on(self, vm_id: str, snapshot_id: str, settings: VmSettings) -> None:
        """It is put back: its disk is to be that of a snapshot of it, which can't be deleted from now on, and these are
        its settings. What it was is remembered, as by `change`, and that it hibernates. Raises
        Conflict(QUOTA_EXCEEDED), and NotFound when the snapshot went away."""

    async def tell_restored(self, vm_id: str, op_id: str = "") -> None:
        """Have the events say that it was put back."""

    async def tell_stall(self, vm_id: str, *, stalled: bool) -> None:
        """Have the events say that it stands still on a full disk, or goes on; unless that is what they said last."""

    async def delete(self, vm_id: str, op_id: str = "") -> None:
        """Absent is fine."""

    async def get(self, vm_id: str) -> Vm:
        """The VM with that id. Raises NotFound."""

    async def exact(self, reference: Reference) -> Vm:
        """The VM of the caller's with that id or name."""

    async def find(self, reference: Reference) -> Vm:
        """The same, or the one whose id begins so: for who only looks."""

    async def all(self) -> list[Vm]:
        """All, oldest first."""

    async def of(self, caller: Caller, *, all_users: bool = False) -> list[Vm]:
        """The caller's, or everybody's; oldest first. Raises Conflict(NOT_ADMIN)."""

    async def kept_by_a_call(self, vm_id: str) -> None:
        """The VM lives for a call from now on, which can't survive this server. Absent is fine."""

    async def keepers(self) -> list[tuple[str, Keeper | None]]:
        """The VMs that live for somebody, by id, and for whom: None is a call."""

    async def slot(self, vm_id: str) -> int | None:
        """Its place in a shared network, None also for a VM that is not there."""

    def connected(self, vm_id: str = "") -> list[Vm]:
        """Those that run, or are asleep, in a shared network: all, or the one with that id."""

    async def token(self, vm_id: str) -> bytes:
        """The secret its agent wants, in this boot alone."""
