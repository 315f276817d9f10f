"""Many commands in a real VM, where the agent is PID 1."""

import queue
import threading

from harness import Server
from ingle.v1 import guest_pb2, vm_pb2
from integration.test_exec import no_process


def test_exit_codes_are_right_while_orphans_are_reaped(server: Server, shared_vm: vm_pb2.Vm) -> None:
    """The detached command leaves orphans to PID 1 all the time, with codes of their own."""
    breed = "while :; do (sh -c 'exit 99' & sh -c 'sleep 0.01; exit 98' &); sleep 0.1; done"
    start = guest_pb2.ExecStart(vm=shared_vm.id, argv=["sh", "-c", breed], detach=True)
    (started,) = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(100):
        numbers.put(number)
    codes: dict[int, int] = {}

    def caller() -> None:
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            codes[number] = server.run(shared_vm.id, "sh", "-c", f"(exit 97) & exit {number % 256}")[0]

    callers = [threading.Thread(target=caller) for _ in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert codes == {number: number % 256 for number in range(100)}
    assert server.run(shared_vm.id, "sh", "-c", f"kill -s KILL -- -{started.started.pid}")[0] == 0
    zombies = (
        "for i in $(seq 100); do grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || exit 0; sleep 0.1; done; exit 1"
    )
    assert server.run(shared_vm.id, "sh", "-c", zombies)[0] == 0


def test_fifty_commands_whose_output_nobody_takes_fit_into_a_small_agent(server: Server, shared_vm: vm_pb2.Vm) -> None:
    calls = []
    for _ in range(50):
        start = guest_pb2.ExecStart(vm=shared_vm.id, argv=["head", "-c", "2000000", "/dev/zero"])
        call = server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)]))
        assert next(call).HasField("started")
        assert next(call).stdout_data
        calls.append(call)
    status = server.run(shared_vm.id, "cat", "/proc/1/status")[1].decode()
    for call in calls:
        call.cancel()
    kibibytes = int(status.split("VmHWM:")[1].split(maxsplit=1)[0])
    assert kibibytes < 20 * 1024
    assert no_process(server, shared_vm, "head -c 2000000")
