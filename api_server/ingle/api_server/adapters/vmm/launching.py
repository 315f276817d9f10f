"""Starting the process of a VMM."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ingle.api_server.adapters.vmm import console, logs
from ingle.api_server.adapters.vmm.cage import environment
from ingle.api_server.adapters.vmm.found import process_name
from ingle.api_server.host import bounded_log, log_times, sockets
from ingle.api_server.host.caged import spawn_caged
from ingle.api_server.host.process import Process
from ingle.api_server.model.errors import Reason, ToolFailed
from ingle.api_server.model.exhaustion import exhaustion
from ingle.api_server.model.vm import Vm
from ingle.api_server.ports.engine import VmPaths


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that listens already, to be handed over open: who connects never has to wait for the VMM, and no limit
    to paths of its own applies. Of those of a VM: its state directory is its owner's alone."""
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        with sockets.short_path(path) as name:
            listener.bind(name)
        listener.listen(1)
        yield listener


async def spawn(
    argv: Sequence[str],
    vm: Vm,
    paths: VmPaths,
    pass_fds: Sequence[int] = (),
    *,
    cage: Sequence[str] = (),
    console_is_stdout: bool = False,
) -> Process:
    """Start a VM's VMM: its program comes first in `argv`, and `process_name` of the VM is among the rest. It works in
    the VM's state directory, and what it and the guest's console say is bounded. `cage`: see cage.py; it sees nothing
    else then.

    Raises ToolFailed(VMM_FAILED)."""
    assert process_name(vm.id) in argv
    paths.vmm_log.unlink(missing_ok=True)
    log_times.forget(paths.vmm_log)
    files = logs.of(paths)
    bounded = logs.begun(files, logs.behind_disks(vm))
    console.mark_start(paths)
    stdout = paths.console_log if console_is_stdout else None
    try:
        if cage:
            child = await spawn_caged(
                cage, argv, stderr=paths.vmm_log, stdout=stdout, pass_fds=pass_fds, env=environment()
            )
        else:
            child = Process.spawn(argv, directory=paths.state, stderr=paths.vmm_log, stdout=stdout, pass_fds=pass_fds)
    except OSError as error:
        if exhaustion(error):
            raise
        raise ToolFailed(Reason.VMM_FAILED, f"{argv[0]} can't be started: {error}") from error
    if bounded:
        child.limit_files(bounded_log.limit(files))
    return child
