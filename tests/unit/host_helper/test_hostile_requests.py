"""Whatever a compromised API server asks for: refused by the validator, or a state whose every name is in range."""

from google.protobuf.message import DecodeError

from ingle.helper.v1 import helper_pb2 as pb
from ingle.host_helper.errors import HelperError
from ingle.host_helper.names import Addresses
from ingle.host_helper.policy import parse
from ingle.host_helper.requests import Validator
from ingle.host_helper.state import Device, Limit, Network, Published, State, Tap
from unit.fuzzing import mutations

POLICY = parse({"user": 4242, "ipv4_pool": "10.9.0.0/22", "vm_uids": [5000, 5009], "max_taps": 3}, "here")
VALIDATORS = [Validator(POLICY, part) for part in (pb.PART_NETWORK, pb.PART_DEVICES)]
NETWORKS = Addresses.of(POLICY).networks
VM, IMAGE = "0123456789ab", "f" * 64

PORT = pb.PublishedPort(vm_id=VM, slot=2, protocol=pb.PROTOCOL_TCP, host_port=8080, vm_port=80, address="2001:db8::1")
CHANGES = (
    pb.Change(ensure_network=pb.EnsureNetworkRequest(network=0, dns_port=10053)),
    pb.Change(create_tap=pb.CreateTapRequest(vm_id=VM, slot=2)),
    pb.Change(set_nat=pb.SetNatRequest(vm_id=VM, slot=2, enabled=True)),
    pb.Change(limit_tap=pb.LimitTapRequest(vm_id=VM, slot=2, bytes_per_second=1 << 20)),
    pb.Change(publish_port=pb.PublishPortRequest(port=PORT)),
    pb.Change(chown_vm_file=pb.ChownVmFileRequest(vm_id=VM, file=pb.VM_FILE_COW, uid=5000)),
    pb.Change(create_snapshot_device=pb.CreateSnapshotDeviceRequest(vm_id=VM, image_id=IMAGE, size_bytes=4096)),
    pb.Change(resize_snapshot_device=pb.ResizeSnapshotDeviceRequest(vm_id=VM, size_bytes=8192)),
)
WANTED = pb.ReconcileRequest(
    networks=[0], taps=[pb.WantedTap(vm_id=VM, slot=2, nat=True, bytes_per_second=1 << 20)], ports=[PORT]
)


def check(state: State) -> None:
    for resource in state:
        match resource:
            case Network(number, dns_port):
                assert number < NETWORKS
                assert 1024 <= dns_port <= 65535
            case Tap(slot, vm):
                assert (slot >> 8) < NETWORKS
                assert (len(vm), vm.isalnum(), vm.isascii()) == (12, True, True)
            case Limit(slot, rate):
                assert (slot >> 8) < NETWORKS
                assert 1 << 17 <= rate <= 1 << 49
            case Published():
                assert resource.host_port in POLICY.publish_ports
                assert set(resource.address) <= set("0123456789abcdef:.")
            case Device(vm, image, size):
                assert (len(vm), len(image)) == (12, 64)
                assert 0 < size <= POLICY.max_device_bytes


def test_fuzz_changes() -> None:
    seeds = [pb.ApplyRequest(changes=[change]).SerializeToString() for change in CHANGES]
    seeds.append(pb.ApplyRequest(changes=CHANGES[:4]).SerializeToString())
    for data in mutations(seeds):
        for validator in VALIDATORS:
            try:
                state = State()
                for verb in validator.verbs(pb.ApplyRequest.FromString(data)):
                    state = verb.edit(state, POLICY)
                    verb.named(state)
            except (DecodeError, HelperError):
                continue
            check(state)


def test_fuzz_what_is_wanted() -> None:
    devices = pb.ReconcileRequest(devices=[pb.WantedDevice(vm_id=VM, image_id=IMAGE, size_bytes=4096)])
    for data in mutations([WANTED.SerializeToString(), devices.SerializeToString()]):
        for validator in VALIDATORS:
            try:
                check(validator.wanted(pb.ReconcileRequest.FromString(data)))
            except (DecodeError, HelperError):
                continue
