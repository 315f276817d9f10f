"""Docker in a guest: Debian's own package, with no systemd around it, and images of a registry at the host's loopback.

The image with Docker in it takes minutes to make, and an emulated guest its time to start the daemon: --slow."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Server
from ingle.v1 import guest_pb2, vm_pb2
from oci_registry import Entry, Registry, directory, layer, running_registry, symlink

from .debian_images import debian_with
from .small_images import BUSYBOX

PACKAGES = ("ca-certificates", "curl", "docker.io", "iproute2", "iptables", "kmod")
HOST = "10.0.2.2"  # the host's loopback, as a guest in a network of its own has it
_DAEMON_SECONDS = 300


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "root") as registry:
        applets = [symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "id", "wget", "httpd", "touch", "ls")]
        busybox = Entry("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755)
        base = layer(directory("bin"), directory("tmp", 0o1777), directory("etc"), busybox, *applets)
        page = layer(directory("www"), Entry("www/index.html", b"from a container\n"))
        config = {"Entrypoint": ["/bin/sh", "-c"], "Env": ["PATH=/bin", "GREETING=hello"], "User": "1000"}
        registry.push("tools:1", [base, page], config)
        yield registry


@pytest.fixture(scope="module")
def guest(server: Server, prepared: Path, registry: Registry, pytestconfig: pytest.Config) -> Iterator[vm_pb2.Vm]:
    """One whose Docker runs."""
    if not pytestconfig.getoption("slow"):
        pytest.skip("an image with Docker takes minutes to make: --slow")
    image = debian_with(server, prepared, "docker", PACKAGES)
    spec = vm_pb2.VmSpec(image=image, vcpus=2, memory_bytes=1 << 30, boot_mode=vm_pb2.BOOT_MODE_COLD)
    vm = server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm
    try:
        begin(server, vm, f"dockerd --insecure-registry {HOST}:{registry.port} >/var/log/dockerd.log 2>&1")
        deadline = time.monotonic() + _DAEMON_SECONDS
        while server.run(vm.id, "docker", "info")[0] != 0:
            assert time.monotonic() < deadline, server.run(vm.id, "cat", "/var/log/dockerd.log")[1].decode()
            time.sleep(1)
        yield vm
    finally:
        server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


def begin(server: Server, vm: vm_pb2.Vm, script: str) -> None:
    """Start what goes on by itself."""
    start = guest_pb2.ExecStart(vm=vm.id, argv=["sh", "-c", script], detach=True)
    list(server.guest.Exec(iter([guest_pb2.ExecRequest(start=start)])))


def said(server: Server, vm: vm_pb2.Vm, *argv: str) -> str:
    code, out, err = server.run(vm.id, *argv)
    assert code == 0, f"{argv}: {err.decode()}\n{server.run(vm.id, 'tail', '/var/log/dockerd.log')[1].decode()}"
    return out.decode().strip()


def test_a_container_of_an_image_of_the_registry_runs(server: Server, guest: vm_pb2.Vm, registry: Registry) -> None:
    image = f"{HOST}:{registry.port}/tools:1"
    script = "echo $GREETING from $(id -u); cat /www/index.html; touch /tmp/x && ls /tmp"
    assert said(server, guest, "docker", "run", "--rm", image, script).split("\n") == [
        "hello from 1000",
        "from a container",
        "x",
    ]
    information = "{{.Driver}} {{.CgroupVersion}} {{.CgroupDriver}}"
    assert said(server, guest, "docker", "info", "--format", information) == "overlay2 2 cgroupfs"
    # Swap there is none; nothing else is missing of what Docker looks for.
    warnings = server.run(guest.id, "docker", "info")[2].decode().splitlines()
    assert set(warnings) <= {"WARNING: No swap limit support"}


def test_limits_of_a_container_are_kept(server: Server, guest: vm_pb2.Vm, registry: Registry) -> None:
    image = f"{HOST}:{registry.port}/tools:1"
    limits = ("--memory", "64m", "--pids-limit", "20", "--cpus", "0.5")
    script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"
    told = said(server, guest, "docker", "run", "--rm", *limits, image, script)
    assert told.split("\n") == [str(64 << 20), "20", "50000 100000"]


def test_a_container_is_reached_at_a_published_port_and_reaches_others(
    server: Server, guest: vm_pb2.Vm, registry: Registry
) -> None:
    image = f"{HOST}:{registry.port}/tools:1"
    serve = ("--detach", "--name", "web", "--publish", "8080:8000")
    said(server, guest, "docker", "run", *serve, image, "httpd -f -p 8000 -h /www")
    for address in ("127.0.0.1", "10.0.2.15"):
        assert said(server, guest, "curl", "-sS", "--retry", "5", "--retry-connrefused", f"http://{address}:8080/") == (
            "from a container"
        )
    beside = f"wget -q -O - http://{HOST}:{registry.port}/v2/tools/tags/list"
    assert '"tags":["1"]' in said(server, guest, "docker", "run", "--rm", image, beside)
    assert said(server, guest, "docker", "exec", "web", "id", "-u") == "1000"
    said(server, guest, "docker", "rm", "--force", "web")


def test_docker_goes_on_after_its_guest_slept(server: Server, guest: vm_pb2.Vm, registry: Registry) -> None:
    server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=guest.id))
    server.vms.WakeVm(vm_pb2.WakeVmRequest(vm=guest.id))
    image = f"{HOST}:{registry.port}/tools:1"
    assert said(server, guest, "docker", "run", "--rm", image, "echo again") == "again"
