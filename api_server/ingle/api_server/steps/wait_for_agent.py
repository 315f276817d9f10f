"""Wait until the guest's agent answers."""

import asyncio
from shlex import quote

from ingle.api_server.model.errors import GuestError, Reason, ToolFailed
from ingle.api_server.ports.guest import GuestDialler
from ingle.api_server.ports.vm_files import VmFiles
from ingle.api_server.steps.target import Cold, Start

_PING_SECONDS = 2.0
_CONSOLE_TAIL_BYTES = 2000
_NO_MEMORY = "deadlocked on memory"  # as the kernel says it when it panics for want of any


class WaitForAgent(Cold):
    """A guest that never answers is told with the end of its console, and with what to try for a kernel that was
    imported without modules."""

    name = "agent"
    text = "waiting for the guest's agent"

    def __init__(self, dialler: GuestDialler, files: VmFiles) -> None:
        self._dialler = dialler
        self._files = files

    async def run(self, target: Start) -> None:
        try:
            async with asyncio.timeout(target.boot_seconds):
                target.boot_id = await self._first_answer(target)
        except TimeoutError:
            raise GuestError(
                Reason.GUEST_UNREACHABLE,
                f"the guest's agent did not answer in {target.boot_seconds:.0f} s{self._console(target)}",
                _remedy(target),
            ) from None
        except ToolFailed as error:
            message = f"{error.message}{self._console(target)}"
            raise ToolFailed(error.reason, message, error.remedy or _remedy(target, error.message)) from error

    async def _first_answer(self, target: Start) -> str:
        vmm = target.live_vmm
        channel = self._dialler.channel(vmm.agent)
        while True:
            await vmm.ready()
            try:
                return (await channel.ping(_PING_SECONDS)).boot_id
            except GuestError as error:
                if error.reason is not Reason.GUEST_UNREACHABLE:
                    raise

    def _console(self, target: Start) -> str:
        said = self._files.tail(target.paths.console_log, _CONSOLE_TAIL_BYTES).strip()
        return f"; its console ends with:\n{said}" if said else "; its console is empty"


def _remedy(target: Start, failure: str = "") -> str:
    """Distributions build as modules what a microVM needs: virtio's disk, network and vsock."""
    kernel = target.kernel
    if _NO_MEMORY in failure:
        return f"--memory {2 * target.vm.settings.memory_bytes // 2**20}M"
    if kernel.modules:
        return ""
    name = kernel.names[0] if kernel.names else "mine"
    return f"ingle kernel import --name {name} --modules /lib/modules/{kernel.release} {quote(kernel.source)}"
