"""What the root helper adds to the work itself: a start's Apply over its socket, beside the same done in this process.

    PYTHONPATH=tests python -m bench.helper [CYCLES]

Root, and a network namespace of its own. A cycle makes a VM's tap, NAT and port, and deletes them again."""

import sys
import time
from collections.abc import Callable
from statistics import quantiles

from helper.process import UID, helper_in_namespace, vm
from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.network import NetworkPart
from ingle.host_helper.policy import parse
from ingle.host_helper.state import Nat, Network, Protocol, Published, State, Tap

_WARM_UP = 20


def main(cycles: int) -> None:
    """Print percentiles of both in milliseconds, and their ratio."""
    with helper_in_namespace(spare_taps=16) as helper:
        stub = helper.stub
        port = pb.PublishedPort(vm_id=vm(1), slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80)
        start = pb.ApplyRequest(
            changes=[
                pb.Change(ensure_network=pb.EnsureNetworkRequest(network=0)),
                pb.Change(create_tap=pb.CreateTapRequest(vm_id=vm(1), slot=2)),
                pb.Change(set_nat=pb.SetNatRequest(vm_id=vm(1), slot=2, enabled=True)),
                pb.Change(publish_port=pb.PublishPortRequest(port=port)),
            ]
        )
        stop = pb.DeleteTapRequest(vm_id=vm(1), slot=2)
        _show("ping", _times(cycles, lambda: stub.Ping(pb.PingRequest()), lambda: None))
        apply = _show("apply", _times(cycles, lambda: stub.Apply(start), lambda: stub.DeleteTap(stop)))
        stub.Reconcile(pb.ReconcileRequest())

        def bare() -> list[float]:
            part = NetworkPart(parse({"user": UID}, "here"))
            without = State([Network(0)])
            tap = Tap(2, vm(1))
            running = without.plus(tap, Nat(2), Published(Protocol.TCP, 8080, 2, 80))
            part.settle(without)
            times = _times(
                cycles, lambda: part.change(without, running, [tap]), lambda: part.change(running, without, ())
            )
            part.settle(State())
            part.close()
            return times

        floor = _show("bare", helper.namespace.do(bare))
        print(f"apply / bare: {apply / floor:.2f}; 2 x bare + 0.6 ms would be {2 * floor + 0.6:.2f} ms")


def _times(cycles: int, action: Callable[[], object], undo: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(cycles + _WARM_UP):
        began = time.perf_counter()
        action()
        times.append((time.perf_counter() - began) * 1000)
        undo()
    return times[_WARM_UP:]


def _show(name: str, times: list[float]) -> float:
    cuts = quantiles(times, n=100)
    print(f"{name:<6} p50 {cuts[49]:6.2f} ms   p95 {cuts[94]:6.2f} ms   p99 {cuts[98]:6.2f} ms")
    return cuts[49]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
