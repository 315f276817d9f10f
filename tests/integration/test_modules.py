"""A kernel with all of its modules in every guest: what people load them for, in one guest, and whose tree is whose."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Server
from ingle.v1 import kernel_pb2, vm_pb2

from .debian_images import debian_with
from .small_images import busybox_tree, registered

PACKAGES = ("bindfs", "iproute2", "iputils-ping", "kmod", "nftables", "wireguard-tools")
RULES = """
table inet guard {
  set friends { type ipv4_addr; flags interval; elements = { 10.77.0.0/24, 127.0.0.0/8 } }
  chain in {
    type filter hook input priority filter; policy accept;
    ct state established,related counter accept
    ip saddr @friends icmp type echo-request counter limit rate 100/second accept
    tcp dport 9 reject with tcp reset
  }
  chain out {
    type nat hook postrouting priority srcnat;
    oifname "eth0" masquerade
  }
}
"""
# Two ends on one machine, whose sockets are where they were made: what is between them is WireGuard.
TUNNEL = """
for end in 0 1; do wg genkey >/root/key$end; done
ip netns add far
for end in 0 1; do ip link add wg$end type wireguard; wg set wg$end listen-port 5182$end private-key /root/key$end; done
ip link set wg1 netns far
wg set wg0 peer $(wg pubkey </root/key1) endpoint 127.0.0.1:51821 allowed-ips 10.77.0.2/32
ip netns exec far wg set wg1 peer $(wg pubkey </root/key0) endpoint 127.0.0.1:51820 allowed-ips 10.77.0.1/32
ip addr add 10.77.0.1/24 dev wg0; ip link set wg0 up
ip netns exec far ip addr add 10.77.0.2/24 dev wg1; ip netns exec far ip link set wg1 up
"""


@pytest.fixture(scope="module")
def guest(server: Server, prepared: Path) -> Iterator[vm_pb2.Vm]:
    image = debian_with(server, prepared, "modules", PACKAGES)
    spec = vm_pb2.VmSpec(image=image, boot_mode=vm_pb2.BOOT_MODE_COLD)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    yield vm
    server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


Said = Callable[[str], str]


@pytest.fixture
def said(server: Server, guest: vm_pb2.Vm) -> Said:
    """What a shell in the guest says, which succeeds."""
    return lambda script: shell(server, guest, script)


def shell(server: Server, vm: vm_pb2.Vm, script: str) -> str:
    code, out, err = server.run(vm.id, "sh", "-ec", script)
    assert code == 0, err.decode()
    return out.decode().strip()


def test_all_modules_are_there_for_reading_at_their_place(server: Server, guest: vm_pb2.Vm, said: Said) -> None:
    kernel = server.kernels.GetKernel(kernel_pb2.GetKernelRequest(kernel=guest.kernel_id)).kernel
    assert kernel.disk_modules > 1000
    found = said("cd /lib/modules/$(uname -r); find kernel -name '*.ko*' | wc -l; pwd -P; touch x 2>&1 || true").split(
        "\n"
    )
    assert found[:2] == [str(kernel.disk_modules), f"/usr/lib/modules/{kernel.release}"]
    assert "Read-only file system" in found[2]
    # The first is from this disk, the others were needed to read it.
    assert {"virtio_net", "squashfs", "virtio_blk"} <= set(said("cut -d' ' -f1 /proc/modules").split())
    assert said("cat /sys/block/vdb/ro; cat /sys/block/vda/ro").split() == ["1", "0"]
    assert said("stat -c '%a %t:%T' /dev/fuse /dev/net/tun").split("\n") == ["666 a:e5", "666 a:c8"]


def test_a_wireguard_tunnel_carries_packets(said: Said) -> None:
    said("modprobe wireguard")
    said(TUNNEL)
    assert "0% packet loss" in said("ping -c 3 -i 0.2 -W 10 10.77.0.2")
    assert int(said("wg show wg0 transfer").split()[1]) > 0


def test_a_rule_set_of_nftables_is_loaded_and_counts(said: Said) -> None:
    said(f"cat >/root/rules <<'END'\n{RULES}\nEND\nnft -f /root/rules; ping -c 2 -i 0.2 127.0.0.1 >/dev/null")
    listed = said("nft list ruleset")
    assert "masquerade" in listed
    # The first request is of nothing that is established yet.
    assert "echo-request counter packets 1 " in listed
    assert "established,related counter packets" in listed


def test_a_file_system_of_a_program_is_mounted(said: Said) -> None:
    said("mkdir -p /mnt/shown /root/kept; echo through a program >/root/kept/file; bindfs -n /root/kept /mnt/shown")
    assert said("cat /mnt/shown/file; stat -f -c %T /mnt/shown").split("\n") == ["through a program", "fuseblk"]
    said("umount /mnt/shown")


def test_an_overlay_is_mounted_and_keeps_what_is_below_as_it_was(said: Said) -> None:
    said(
        "mkdir -p /root/o/low /root/o/up /root/o/work /mnt/over; echo below >/root/o/low/file\n"
        "mount -t overlay -o lowerdir=/root/o/low,upperdir=/root/o/up,workdir=/root/o/work overlay /mnt/over\n"
        "echo above >>/mnt/over/file"
    )
    assert said("cat /mnt/over/file /root/o/low/file; umount /mnt/over").split("\n") == ["below", "above", "below"]


def test_the_disk_is_there_after_sleep_and_in_forks(server: Server, guest: vm_pb2.Vm, said: Said) -> None:
    """Nothing of these modules was read before: no page of them is in memory that was saved."""
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=guest.id))
    server.vms.WakeVm(vm_pb2.WakeVmRequest(vm=guest.id))
    said("modprobe dummy; ip link show dummy0")
    (fork,) = server.vms.ForkVm(vm_pb2.ForkVmRequest(vm=guest.id)).vms
    try:
        shell(server, fork, "modprobe sch_netem; ip link show dummy0; tc qdisc add dev dummy0 root netem delay 1ms")
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=fork.id, force=True))


def test_an_image_keeps_a_tree_of_its_own_and_gets_the_kernels_where_it_has_another_or_none(
    server: Server, tmp_path: Path
) -> None:
    """/lib is a link there, as in all systems whose /usr is merged."""
    release = server.kernels.GetKernel(kernel_pb2.GetKernelRequest(kernel="debian")).kernel.release
    tree = busybox_tree(tmp_path / "tree")
    (tree / "lib").symlink_to("usr/lib")
    for name in (release, "5.0.0-another"):
        (tree / "usr/lib/modules" / name).mkdir(parents=True)
        (tree / "usr/lib/modules" / name / "own").write_text("the image's")
    with registered(server, "own-modules", tree) as image:
        vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=vm_pb2.VmSpec(image=image))).vm
        try:
            assert shell(server, vm, "ls /lib/modules/$(uname -r)") == "own"
            shell(server, vm, "rm -r /usr/lib/modules/$(uname -r)")
            server.vms.RestartVm(vm_pb2.RestartVmRequest(vm=vm.id))
            assert shell(server, vm, "ls /usr/lib/modules").split() == ["5.0.0-another", release]
            assert shell(server, vm, "cat /lib/modules/5.0.0-another/own") == "the image's"
            shell(server, vm, "modprobe wireguard; ip link add wg0 type wireguard; ip link show wg0")
        finally:
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))
