"""What ingle remembers: intent (VMs, images, kernels, operations) and the journal of steps in flight."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ingle.api_server.model.operation import Operation
from ingle.api_server.model.vm import Image, Kernel, Owner, Running, Vm, VmState


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A step that was begun for a VM and neither completed as part of its operation nor undone."""

    op_id: str
    vm_id: str
    step: str


class Journal(Protocol):
    """Intent, on disk before anything acts on it."""

    async def intend(self, entry: JournalEntry) -> None:
        """Committed and synced when this returns."""

    async def forget(self, entry: JournalEntry) -> None:
        """The step was undone."""

    async def close(self, op_id: str) -> None:
        """The operation is complete: what its steps acquired is now owned by the VM's row. Its record says SUCCEEDED in
        the same transaction, so a crash right after can't make a failure of it."""

    async def open_entries(self) -> list[JournalEntry]:
        """All of them, in the order they were intended."""


class Store(Journal, Protocol):
    """Durable memory with one writer. A method is one transaction, committed when it returns.

    References are resolved here and nowhere else. What changes something takes a whole id or a name, so that a call
    that is sent twice never meets another; only who looks may `find` by a unique prefix of an id as well. Raises
    NotFound with the kind's reason, or AMBIGUOUS_REFERENCE."""

    async def insert_vm(self, vm: Vm, token: bytes, owner: Owner | None = None) -> Vm:
        """Record a VM, and whom it lives for if for anybody. Answers it with a free slot of its network, which comes to
        be with the first VM in it, and goes with the last.

        Raises Conflict(NAME_TAKEN), HostProblem(ADDRESSES_EXHAUSTED), and NotFound when image or kernel went away."""

    async def update_vm(self, vm: Vm) -> None:
        """Everything but state and running facts. Raises Conflict(NAME_TAKEN)."""

    async def move_vm(
        self, vm_id: str, state: VmState, *, running: Running | None = None, error: str = "", token: bytes | None = None
    ) -> Vm:
        """Change the state, by the state machine's rules (Conflict WRONG_STATE); running facts only with RUNNING.
        `token` replaces what its agent wants."""

    async def delete_vm(self, vm_id: str) -> None:
        """Absent is fine."""

    async def vm(self, reference: str) -> Vm:
        """The VM with that id or name."""

    async def find_vm(self, reference: str) -> Vm:
        """The same, or the one VM whose id begins so: for who only looks."""

    async def vms(self) -> list[Vm]:
        """All, oldest first."""

    async def owned_by_a_call(self, vm_id: str) -> None:
        """The VM lives for a call from now on, which can't survive this server. Absent is fine."""

    async def owners(self) -> list[tuple[str, Owner | None]]:
        """The VMs that live for somebody, by id, and for whom: None is a call."""

    async def vm_slot(self, vm_id: str) -> int | None:
        """Its place in a shared network, None also for a VM that is not there."""

    def connected_vms(self, vm_id: str = "") -> list[Vm]:
        """Those that run in a shared network: all, or the one with that id."""

    watch: Callable[[str], None]
    """Called with a VM's id when it may have changed or be gone, and with none when something else has."""

    async def vm_token(self, vm_id: str) -> bytes:
        """The secret its agent wants, in this boot alone."""

    async def add_image(self, image: Image, name: str) -> Image:
        """Record an image if it is new, and let `name` stand for it (it may have stood for another)."""

    async def image(self, reference: str) -> Image:
        """The image with that id or name."""

    async def find_image(self, reference: str) -> Image:
        """As find_vm."""

    async def images(self) -> list[Image]:
        """All, oldest first."""

    async def delete_image(self, image_id: str) -> None:
        """Raises Conflict(IN_USE) naming the VMs."""

    async def add_kernel(self, kernel: Kernel, name: str) -> Kernel:
        """As add_image."""

    async def kernel(self, reference: str) -> Kernel:
        """The kernel with that id or name."""

    async def find_kernel(self, reference: str) -> Kernel:
        """As find_vm."""

    async def kernels(self) -> list[Kernel]:
        """All, oldest first."""

    async def delete_kernel(self, kernel_id: str) -> None:
        """Raises Conflict(IN_USE) naming the VMs."""

    async def save_operation(self, operation: Operation) -> None:
        """Insert or replace."""

    async def operation(self, op_id: str) -> Operation:
        """Raises NotFound(OPERATION_NOT_FOUND)."""

    async def operations(self, limit: int) -> list[Operation]:
        """Newest first."""
