"""The servicer alone: what it asks of its part, in which order, and what it takes back."""

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc_testing
import pytest

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.core import Core
from ingle.host_helper.errors import HelperError, KernelRefused, Missing
from ingle.host_helper.gate import Peer, peer_of
from ingle.host_helper.journal import Journal
from ingle.host_helper.policy import parse
from ingle.host_helper.requests import Validator
from ingle.host_helper.service import HelperService
from ingle.host_helper.state import Network, Resource, State, Tap

VM = "0123456789ab"
POLICY = parse({"user": 4242}, "here")
SERVICE = pb.DESCRIPTOR.services_by_name["HelperService"]


class Recorder:
    """Implements part.Part with a kernel that is a state, and fails when told to."""

    number: "pb.Part.ValueType" = pb.PART_NETWORK
    untidy = False

    def __init__(self, journal: Journal) -> None:
        self.kernel = State()
        self.journal = journal
        self.refusal: HelperError | None = None
        self.failure: Exception | None = None

    def check(self, old: State, new: State) -> None:
        if self.refusal:
            raise self.refusal

    def change(self, old: State, new: State, named: Sequence[Resource]) -> None:
        assert old == self.kernel
        assert self.journal.state != self.kernel or old == new, "journalled before it is made"
        self.kernel = new
        failure, self.failure = self.failure, None
        if failure:
            raise failure

    def watch(self, changed: Callable[[], None]) -> None:
        """Nothing changes but by calls."""

    def settle(self, state: State) -> None:
        assert self.journal.state == state
        self.kernel = state

    def describe(self, named: Sequence[Resource], state: State) -> pb.ApplyResponse:
        return pb.ApplyResponse(
            networks=[pb.Network(network=each.number) for each in named if isinstance(each, Network)],
            taps=[pb.Tap(slot=each.slot) for each in named if isinstance(each, Tap)],
        )

    def examine(self, state: State) -> pb.ExamineResponse:
        return pb.ExamineResponse(taps=pb.Usage(used=len(state.all(Tap))))

    def find_overlaps(self) -> Sequence[pb.Overlap]:
        return [pb.Overlap(pool="10.213.0.0/16", network="10.0.0.0/8", interface="tun0", source="route")]

    def list(self, state: State) -> pb.ListResponse:
        return pb.ListResponse(taps=[pb.Tap(slot=each.slot) for each in state.all(Tap)])

    def tidy(self) -> None:
        pass

    def close(self) -> None:
        pass


class Bench:
    """A servicer under test, called as a client would."""

    def __init__(self, path: Path, peer: Peer | None) -> None:
        journal = Journal(path)
        self.part = Recorder(journal)
        self.journal = journal
        core = Core(POLICY, journal, self.part, lambda: None)
        service = HelperService(
            core, Validator(POLICY, pb.PART_NETWORK), pb.PART_NETWORK, frozenset({4242}), lambda context: peer
        )
        self._server = grpc_testing.server_from_dictionary({SERVICE: service}, grpc_testing.strict_real_time())

    def call(self, method: str, request: object) -> object:
        """The response, or the code when it was refused. An abort's metadata is lost in grpc_testing; that it is right
        tests/helper asserts."""
        rpc = self._server.invoke_unary_unary(SERVICE.methods_by_name[method], (), request, None)
        response, _, code, _ = rpc.termination()
        return response if code is grpc.StatusCode.OK else code


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "journal", Peer(4242, 4242, 1))


def create(slot: int = 2) -> pb.Change:
    return pb.Change(create_tap=pb.CreateTapRequest(vm_id=VM, slot=slot))


NETWORK = pb.Change(ensure_network=pb.EnsureNetworkRequest(network=0))


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
@pytest.mark.parametrize("peer", [None, Peer(4243, 4242, 1), Peer(0, 0, 1)])
def test_every_method_refuses_a_stranger(tmp_path: Path, method: str, peer: Peer | None) -> None:
    bench = Bench(tmp_path / "journal", peer)
    request = getattr(pb, f"{method}Request")()
    assert bench.call(method, request) is grpc.StatusCode.PERMISSION_DENIED


def test_apply_does_all_and_tells_what_is_there(bench: Bench) -> None:
    response = bench.call("Apply", pb.ApplyRequest(changes=[NETWORK, create()]))
    assert response == pb.ApplyResponse(networks=[pb.Network(network=0)], taps=[pb.Tap(slot=2)])
    assert bench.part.kernel == bench.journal.state == State([Network(0), Tap(2, VM)])


def test_a_later_change_sees_what_an_earlier_one_made(bench: Bench) -> None:
    delete = pb.Change(delete_tap=pb.DeleteTapRequest(vm_id=VM, slot=2))
    response = bench.call("Apply", pb.ApplyRequest(changes=[NETWORK, create(), delete]))
    assert response == pb.ApplyResponse(networks=[pb.Network(network=0)])
    assert bench.part.kernel == State([Network(0)])


def test_one_change_that_is_refused_refuses_all_before_anything_is_done(bench: Bench) -> None:
    nat = pb.Change(set_nat=pb.SetNatRequest(vm_id=VM, slot=9, enabled=True))
    assert bench.call("Apply", pb.ApplyRequest(changes=[NETWORK, create(), nat])) is grpc.StatusCode.FAILED_PRECONDITION
    assert bench.part.kernel == bench.journal.state == State()


def test_what_the_host_can_not_do_is_refused_before_anything_is_done(bench: Bench) -> None:
    bench.part.refusal = Missing("no forwarding")
    assert bench.call("EnsureNetwork", NETWORK.ensure_network) is grpc.StatusCode.FAILED_PRECONDITION
    assert bench.part.kernel == bench.journal.state == State()


@pytest.mark.parametrize("failure", [KernelRefused("no"), RuntimeError("surprise")])
def test_what_failed_half_way_is_taken_back(bench: Bench, failure: Exception) -> None:
    bench.call("EnsureNetwork", NETWORK.ensure_network)
    bench.part.failure = failure
    assert bench.call("Apply", pb.ApplyRequest(changes=[create()])) is grpc.StatusCode.INTERNAL
    assert bench.part.kernel == bench.journal.state == State([Network(0)])


def test_reconcile_makes_what_is_wanted_all_there_is(bench: Bench) -> None:
    bench.call("Apply", pb.ApplyRequest(changes=[NETWORK, create(2), create(3)]))
    wanted = pb.ReconcileRequest(networks=[0], taps=[pb.WantedTap(vm_id=VM, slot=3), pb.WantedTap(vm_id=VM, slot=4)])
    response = bench.call("Reconcile", wanted)
    assert response == pb.ReconcileResponse(added=[f"tap 4 of {VM}"], removed=[f"tap 2 of {VM}"])
    assert bench.part.kernel == bench.journal.state == State([Network(0), Tap(3, VM), Tap(4, VM)])


def test_the_gates_name_for_a_peer_is_understood_and_nothing_like_it() -> None:
    name = "unix-abstract:ingle-gate/uid=7,gid=8,pid=9,n=0a"
    assert peer_of(name) == Peer(7, 8, 9)
    assert peer_of("unix-abstract:ingle-gate/uid%3D7%2Cgid%3D8%2Cpid%3D9%2Cn%3D0a") == Peer(7, 8, 9)
    for other in ("unix:", "", "unix-abstract:other/uid=7,gid=8,pid=9,n=0a", f"{name} x", name.replace("7", "-7")):
        assert peer_of(other) is None
