"""Where a VM can run: engine, acceleration, disk and network, chosen together from what is wished for, what each engine
says of itself, and what this host has. Why nothing does is one error, that names each engine and what is in its way.

A VM keeps its engine, disk and network for life. How its guest is accelerated is found out at each start: a host's KVM
comes and goes.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import HostProblem, InvalidArgument, Reason
from ingle.api_server.model.network import DEFAULT_NETWORK, USER_NETWORK
from ingle.api_server.model.spec import ANY_ENGINE, CompleteSpec
from ingle.api_server.model.vm import Acceleration, Kernel, Vm
from ingle.api_server.ports.disk import DiskBackend
from ingle.api_server.ports.engine import Engine, NetworkKind, engine_of
from ingle.api_server.ports.network import HostNetwork

_FASTEST_FIRST = (Acceleration.KVM, Acceleration.TCG)
_DISK_REMEDY = "leave --disk-backend, or disk_backend in the configuration, out: then the best that works is taken"
_NETWORK_REMEDY = "sudo ingle system install"
_SHARED_REMEDY = f"leave --network {USER_NETWORK} out"


@dataclass(frozen=True, slots=True)
class Place:
    """One that the host and the engine have."""

    engine: str
    acceleration: Acceleration
    """KVM or TCG: what the engine would use, if guests turn out to run so."""
    disk_backend: str
    network: str


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that is in the way."""

    what: str
    remedy: str = ""


Refused = tuple[str, tuple[Obstacle, ...]]
"""An engine, or an engine's acceleration, and all that is in its way."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What there is, best first and not nothing; and what there is not, with why."""

    places: tuple[Place, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def best(self) -> Place:
        """The first to be tried."""
        return self.places[0]

    @property
    def settled(self) -> bool:
        """Whether all is known that a VM keeps."""
        return len({(place.engine, place.disk_backend, place.network) for place in self.places}) == 1


class Placement:
    """The one that knows engines, disks and networks."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        backends: Mapping[str, DiskBackend],
        network: HostNetwork,
        images: Path,
        vms: Path,
    ) -> None:
        """`engines` and `backends`: the better ones first."""
        self._engines = engines
        self._backends = backends
        self._network = network
        self._images = images
        self._vms = vms

    async def choose(self, spec: CompleteSpec) -> Choice:
        """What there is for a VM whose defaults are filled in, without running a guest to find out.

        Raises HostProblem when there is nothing, InvalidArgument for an engine that nobody knows."""
        wish = spec.acceleration
        disk_problem = _asked_once(lambda name: self._backends[name].usable(self._images, self._vms))
        network_problem = _asked_once(lambda _: self._network.problem())
        places: list[Place] = []
        refused: list[Refused] = []
        for engine in self._wished(spec.engine):
            obstacles = []
            if problem := await engine.problem():
                obstacles.append(Obstacle(problem.message, problem.remedy))
            if not (accelerations := _accelerations(engine, wish)):
                obstacles.append(Obstacle(f"it has no {wish.value}", _other_acceleration(engine)))
            if (most := engine.info.most_vcpus) is not None and spec.vcpus > most:
                obstacles.append(Obstacle(f"it gives a VM {most} vcpus at most", f"use --vcpu {most}"))
            disk = await self._disk(engine, spec.disk_backend, disk_problem)
            network = await self._connection(engine, spec, network_problem)
            obstacles += [found for found in (disk, network) if isinstance(found, Obstacle)]
            if obstacles or isinstance(disk, Obstacle) or isinstance(network, Obstacle):
                refused.append((engine.info.name, tuple(obstacles)))
                continue
            places += [Place(engine.info.name, each, disk, network) for each in accelerations]
        if not places:
            raise _refusal(refused)
        places.sort(key=lambda place: _FASTEST_FIRST.index(place.acceleration))
        return Choice(tuple(places), tuple(refused))

    async def settle(self, choice: Choice, kernel: Kernel) -> Place:
        """The best of it that runs `kernel`, which may take a guest to find out. Raises HostProblem when none does."""
        if choice.settled:
            return choice.best
        refused = []
        for place in choice.places:
            problem = await self._engines[place.engine].acceleration_problem(place.acceleration, kernel)
            if not problem:
                return place
            refused.append((place.engine, (Obstacle(f"{place.acceleration.value} does not work here: {problem}"),)))
        raise _refusal([*refused, *choice.refused])

    async def acceleration(self, vm: Vm, kernel: Kernel) -> Acceleration:
        """KVM or TCG, for a start. Raises HostProblem."""
        engine = engine_of(vm, self._engines)
        obstacles = []
        for acceleration in _accelerations(engine, vm.settings.acceleration):
            problem = await engine.acceleration_problem(acceleration, kernel)
            if not problem:
                return acceleration
            what = f"{acceleration.value} does not work here: {problem}"
            obstacles.append(Obstacle(what, _other_acceleration(engine, acceleration)))
        raise _refusal([(vm.settings.engine, tuple(obstacles))])

    def check(self, vms: Sequence[Vm], caller: Caller) -> Check:
        """Whether every VM can be started, as far as it takes its engine."""
        lost = [vm for vm in vms if vm.settings.engine not in self._engines]
        if not lost:
            return Check("engines", "pass", ", ".join(self._engines))
        told = "; ".join(f"{vm.called_by(caller)}: this server has no engine {vm.settings.engine}" for vm in lost)
        return Check(
            "engines", "warn", told, f"ingle vm delete --force {' '.join(vm.called_by(caller) for vm in lost)}"
        )

    def _wished(self, name: str) -> list[Engine]:
        if name in {"", ANY_ENGINE}:
            return list(self._engines.values())
        if name not in self._engines:
            known = ", ".join((ANY_ENGINE, *self._engines))
            raise InvalidArgument(f"engine {name!r}: one of {known} is allowed", f"--engine {ANY_ENGINE}")
        return [self._engines[name]]

    async def _disk(self, engine: Engine, wish: str, problem_of: "_Question") -> str | Obstacle:
        problems = []
        for backend in [self._backends[wish]] if wish else self._backends.values():
            if backend.format not in engine.info.disk_formats:
                problem = f"it takes no {backend.format.value}"
            elif not (problem := await problem_of(backend.name)):
                return backend.name
            problems.append(f"{backend.name}: {problem}")
        return Obstacle(f"disk backend {'; '.join(problems)}", _DISK_REMEDY if wish else "")

    async def _connection(self, engine: Engine, spec: CompleteSpec, problem_of: "_Question") -> str | Obstacle:
        wish = spec.network
        problems = []
        for name in [wish] if wish else (DEFAULT_NETWORK, USER_NETWORK):
            shared = name != USER_NETWORK
            if (NetworkKind.SHARED if shared else NetworkKind.USER) not in engine.info.networks:
                problem = "it is in no network that VMs share" if shared else "it has none of a VM's own"
            elif not shared and spec.net_bytes_per_second:
                problem = "its VMM connects it, and nothing limits that"
            elif not (problem := await problem_of("") if shared else ""):
                return name
            problems.append(f"no network {name!r}: {problem}")
        ours = wish == USER_NETWORK and NetworkKind.SHARED in engine.info.networks
        return Obstacle("; ".join(problems), _SHARED_REMEDY if ours else _NETWORK_REMEDY)


_Question = Callable[[str], Awaitable[str]]


def _asked_once(question: _Question) -> _Question:
    """What the host is asked is answered for all engines at once."""
    answers: dict[str, str] = {}

    async def ask(name: str) -> str:
        if name not in answers:
            answers[name] = await question(name)
        return answers[name]

    return ask


def _accelerations(engine: Engine, wish: Acceleration) -> list[Acceleration]:
    return [each for each in _FASTEST_FIRST if each in engine.info.accelerations and wish in {each, Acceleration.AUTO}]


def _other_acceleration(engine: Engine, than: Acceleration | None = None) -> str:
    others = [each.value for each in _FASTEST_FIRST if each in engine.info.accelerations and each is not than]
    return f"use --accel {others[-1]}" if others else f"use --engine {ANY_ENGINE}"


def _refusal(refused: Sequence[Refused]) -> HostProblem:
    """All of it; the remedy is of what is nearest to being had."""
    told = "; ".join(f"{name}: {', and '.join(each.what for each in obstacles)}" for name, obstacles in refused)
    nearest_first = sorted(refused, key=lambda each: len(each[1]))
    remedy = next((each.remedy for _, obstacles in nearest_first for each in obstacles if each.remedy), "")
    return HostProblem(Reason.DEPENDENCY_MISSING, f"no engine can run this VM here: {told}", remedy)
