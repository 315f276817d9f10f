"""VMs, what is wanted of them, and how they are."""

from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.network import Protocol, PublishedPort, published_address
from ingle.api_server.model.spec import VmChange, VmSpec
from ingle.api_server.model.vm import Acceleration, BootMode, Init, Vm, VmSettings, VmState
from ingle.api_server.model.vm_filter import VmFilter
from ingle.api_server.model.workload import Workload
from ingle.api_server.rpc.convert.healthchecks import healthcheck, wished_healthcheck
from ingle.api_server.rpc.convert.times import timestamp
from ingle.v1 import protocol_pb2, vm_pb2

VM_STATES: Mapping[VmState, vm_pb2.VmState.ValueType] = {
    state: vm_pb2.VmState.Value(f"VM_STATE_{state.name}") for state in VmState
}
_VM_STATES_BACK = {number: state for state, number in VM_STATES.items()}
ACCELERATIONS: Mapping[Acceleration, vm_pb2.Acceleration.ValueType] = {
    item: vm_pb2.Acceleration.Value(f"ACCELERATION_{item.name}") for item in Acceleration
}
_ACCELERATIONS_BACK = {number: item for item, number in ACCELERATIONS.items()}
INITS: Mapping[Init, vm_pb2.Init.ValueType] = {item: vm_pb2.Init.Value(f"INIT_{item.name}") for item in Init}
_INITS_BACK = {number: item for item, number in INITS.items()}
_BOOT_MODES: Mapping[BootMode, vm_pb2.BootMode.ValueType] = {
    item: vm_pb2.BootMode.Value(f"BOOT_MODE_{item.name}") for item in BootMode
}
_BOOT_MODES_BACK = {vm_pb2.BOOT_MODE_UNSPECIFIED: BootMode.AUTO} | {
    number: item for item, number in _BOOT_MODES.items()
}
PROTOCOLS: Mapping[Protocol, protocol_pb2.Protocol.ValueType] = {
    item: protocol_pb2.Protocol.Value(f"PROTOCOL_{item.name}") for item in Protocol
}
_PROTOCOLS_BACK = {protocol_pb2.PROTOCOL_UNSPECIFIED: Protocol.TCP} | {
    number: item for item, number in PROTOCOLS.items()
}
_NO_WORKLOAD = Workload()
_MOST_KNOWN = 2048
_known_settings: dict[int, tuple[VmSettings, vm_pb2.Vm]] = {}  # by identity, which holds as long as they are kept here
_UPDATABLE = (
    *("name", "vcpus", "memory_bytes", "disk_bytes", "nat", "labels"),
    *("pause_after", "hibernate_after", "delete_after", "keep_awake", "wake_by_name", "auto_start"),
    *("disk_iops", "disk_bytes_per_second", "net_bytes_per_second"),
)
_EMPTY_IS_A_VALUE = {"name", "labels"}


def vm(value: Vm) -> vm_pb2.Vm:
    """A VM, with the facts of its VMM when one lives."""
    message = vm_pb2.Vm(
        id=value.id,
        name=value.name,
        state=VM_STATES[value.state],
        created_at=timestamp(value.created_at),
        error=value.error if value.state is VmState.ERROR else "",
        sleep_error="" if value.state is VmState.ERROR else value.error,
        generation=value.generation,
        owner=value.owner,
        snapshot_id=value.snapshot_id,
    )
    message.MergeFrom(_settings(value.settings))
    if value.asleep_since is not None:
        message.asleep_since.CopyFrom(timestamp(value.asleep_since))
    if value.vmm is not None:
        message.started_at.CopyFrom(timestamp(value.vmm.started_at))
        message.pid = value.vmm.pid
        message.running_acceleration = ACCELERATIONS[value.vmm.acceleration]
        message.boot_id = value.vmm.boot_id
        message.boot_mode = _BOOT_MODES[value.vmm.boot_mode]
        message.address = value.address
        message.address6 = value.address6
    return message


def _settings(settings: VmSettings) -> vm_pb2.Vm:
    """A VM with those alone, which is not to be changed: VMs that are alike share it, since the store gives them the
    same settings, and making it is most of what a VM in a list takes."""
    known = _known_settings.get(id(settings))
    if known is not None and known[0] is settings:
        return known[1]
    message = vm_pb2.Vm(
        image_id=settings.image_id,
        image_name=settings.image_name,
        kernel_id=settings.kernel_id,
        kernel_name=settings.kernel_name,
        engine=settings.engine,
        acceleration=ACCELERATIONS[settings.acceleration],
        disk_backend=settings.disk_backend,
        vcpus=settings.vcpus,
        memory_bytes=settings.memory_bytes,
        disk_bytes=settings.disk_bytes,
        env=settings.env or None,
        ports=[_published(port) for port in settings.ports],
        network=settings.network,
        nat=settings.nat,
        init=INITS[settings.init],
        ssh_keys=settings.ssh_keys,
        labels=settings.labels or None,
        pause_after=_after(settings.pause_after),
        hibernate_after=_after(settings.hibernate_after),
        delete_after=_after(settings.delete_after),
        keep_awake=settings.keep_awake,
        wake_by_name=settings.wake_by_name,
        disk_iops=settings.disk_iops,
        disk_bytes_per_second=settings.disk_bytes_per_second,
        net_bytes_per_second=settings.net_bytes_per_second,
        auto_start=settings.auto_start,
        workload=None if settings.workload == _NO_WORKLOAD else _workload(settings.workload),
        healthcheck=healthcheck(settings.healthcheck) if settings.healthcheck.test else None,
    )
    if len(_known_settings) >= _MOST_KNOWN:
        _known_settings.clear()
    _known_settings[id(settings)] = settings, message
    return message


def vm_spec(message: vm_pb2.VmSpec) -> VmSpec:
    """A wish, as it came. Raises InvalidArgument for a value of an enum that we do not know."""
    return VmSpec(
        name=message.name,
        image=message.image,
        kernel=message.kernel,
        vcpus=message.vcpus if message.HasField("vcpus") else None,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        disk_bytes=message.disk_bytes if message.HasField("disk_bytes") else None,
        env=dict(message.env),
        acceleration=_acceleration(message.acceleration),
        engine=message.engine,
        disk_backend=message.disk_backend,
        init=_init(message.init),
        ssh_keys=tuple(message.ssh_keys),
        labels=dict(message.labels),
        boot_mode=_boot_mode(message.boot_mode),
        ports=tuple(_published_port(port) for port in message.ports),
        network=message.network,
        nat=message.nat if message.HasField("nat") else None,
        pause_after=_whole_seconds(message.pause_after) if message.HasField("pause_after") else None,
        hibernate_after=_whole_seconds(message.hibernate_after) if message.HasField("hibernate_after") else None,
        delete_after=_whole_seconds(message.delete_after) if message.HasField("delete_after") else None,
        keep_awake=message.keep_awake if message.HasField("keep_awake") else None,
        wake_by_name=message.wake_by_name if message.HasField("wake_by_name") else None,
        disk_iops=message.disk_iops if message.HasField("disk_iops") else None,
        disk_bytes_per_second=message.disk_bytes_per_second if message.HasField("disk_bytes_per_second") else None,
        net_bytes_per_second=message.net_bytes_per_second if message.HasField("net_bytes_per_second") else None,
        auto_start=message.auto_start if message.HasField("auto_start") else None,
        healthcheck=wished_healthcheck(message.healthcheck) if message.HasField("healthcheck") else None,
    )


def vm_filter(request: vm_pb2.ListVmsRequest) -> VmFilter:
    """Raises InvalidArgument for a state we do not know, and for one label with two values."""
    if unknown := [number for number in request.states if number not in _VM_STATES_BACK]:
        raise InvalidArgument(f"state {unknown[0]}: one of a VM's is allowed", field="states")
    return VmFilter(wanted_labels(request.labels), frozenset(_VM_STATES_BACK[number] for number in request.states))


def wanted_labels(labels: Iterable[str]) -> Mapping[str, str | None]:
    """Raises InvalidArgument for one with two values."""
    found: dict[str, str | None] = {}
    for label in labels:
        key, equals, value = label.partition("=")
        wanted = value if equals else None
        if found.setdefault(key, wanted) != wanted:
            raise InvalidArgument(f"label {key[:100]!r} is asked for with two values: no VM has both", field="labels")
    return found


def vm_change(request: vm_pb2.UpdateVmRequest) -> VmChange:
    """Raises InvalidArgument for an empty mask, and for paths that can't be changed or have no value."""
    paths = request.update_mask.paths
    if not paths:
        raise InvalidArgument(f"update_mask is empty: name one or more of {', '.join(_UPDATABLE)}", field="update_mask")
    unknown = sorted(set(paths) - set(_UPDATABLE))
    if unknown:
        raise InvalidArgument(
            f"{', '.join(unknown)} can't be changed: {', '.join(_UPDATABLE)} can", field="update_mask"
        )
    missing = sorted(path for path in set(paths) - _EMPTY_IS_A_VALUE if not request.spec.HasField(path))  # type: ignore[arg-type]
    if missing:
        raise InvalidArgument(
            f"update_mask names {', '.join(missing)}, but spec has no value for it", field="update_mask"
        )
    spec = vm_spec(request.spec)
    return VmChange(
        expected_generation=request.expected_generation if request.HasField("expected_generation") else None,
        **{path: getattr(spec, path) for path in paths},
    )


def _workload(value: Workload) -> vm_pb2.Workload:
    return vm_pb2.Workload(
        entrypoint=value.entrypoint,
        command=value.command,
        environment=value.environment,
        user=value.user,
        working_directory=value.directory,
        stop_signal=value.stop_signal,
        exposed_ports=value.exposed_ports,
    )


def _after(seconds: int) -> Duration | None:
    return Duration(seconds=seconds) if seconds else None


def _whole_seconds(value: Duration) -> int:
    """A begun one is one: what is not to be never is not."""
    return value.seconds + (1 if value.nanos > 0 else 0)


def _published(port: PublishedPort) -> vm_pb2.PublishedPort:
    return vm_pb2.PublishedPort(
        host_port=port.host_port, vm_port=port.vm_port, protocol=PROTOCOLS[port.protocol], address=port.address
    )


def _published_port(message: vm_pb2.PublishedPort) -> PublishedPort:
    if message.protocol not in _PROTOCOLS_BACK:
        raise InvalidArgument(f"protocol {message.protocol}: TCP or UDP is allowed", field="ports")
    address = published_address(message.address)
    return PublishedPort(message.host_port, message.vm_port, _PROTOCOLS_BACK[message.protocol], address)


def _acceleration(number: vm_pb2.Acceleration.ValueType) -> Acceleration | None:
    if number == vm_pb2.ACCELERATION_UNSPECIFIED:
        return None
    try:
        return _ACCELERATIONS_BACK[number]
    except KeyError:
        raise InvalidArgument(f"acceleration {number}: AUTO, KVM or TCG is allowed", field="acceleration") from None


def _init(number: vm_pb2.Init.ValueType) -> Init:
    if number == vm_pb2.INIT_UNSPECIFIED:
        return Init.AGENT
    try:
        return _INITS_BACK[number]
    except KeyError:
        raise InvalidArgument(f"init {number}: AGENT or IMAGE is allowed", field="init") from None


def _boot_mode(number: vm_pb2.BootMode.ValueType) -> BootMode:
    if number not in _BOOT_MODES_BACK:
        raise InvalidArgument(f"boot_mode {number}: AUTO, WARM or COLD is allowed", field="boot_mode")
    return _BOOT_MODES_BACK[number]
