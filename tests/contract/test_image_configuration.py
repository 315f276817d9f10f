"""What an image says of how it is to be run, and where it comes from that a VM is made of: through the server and the
command line. The VMs' engine is a stand-in, whose guests run the host's own programs; test_registry_images of
tests/integration has real ones."""

import base64
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from contract.test_registry_images import ingle
from harness import Server, refused
from ingle.v1 import event_pb2, guest_pb2, healthcheck_pb2, image_pb2, registry_pb2, vm_pb2
from oci_registry import PASSWORD, USER, Entry, Registry, layer, running_registry

HEALTHY, UNHEALTHY = healthcheck_pb2.HEALTH_STATUS_HEALTHY, healthcheck_pb2.HEALTH_STATUS_UNHEALTHY
TREE = layer(Entry("etc/hostname", b"of a registry"))
CONFIG = {
    "Entrypoint": ["/bin/echo", "by the entrypoint:"],
    "Cmd": ["nothing else said"],
    "Env": ["COLOUR=red", "PATH=/opt/app/bin:/usr/bin:/bin", "odd.name=kept"],
    "WorkingDir": "/usr",
    "User": "65534:4",
    "ExposedPorts": {"8080/tcp": {}},
    "StopSignal": "SIGQUIT",
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "private", login=True) as registry:
        registry.push("org/app:v1", [TREE], CONFIG)
        registry.push("org/bare:v1", [TREE], {})
        yield registry


@pytest.fixture
def home(tmp_path: Path, registry: Registry) -> Path:
    """Of one who has logged in at the registry."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
    return tmp_path


@pytest.fixture(autouse=True)
def no_vm_is_left(red_server: Server) -> Iterator[None]:
    yield
    for vm in red_server.list():
        red_server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id, force=True))


@pytest.fixture
def app(red_server: Server, registry: Registry) -> str:
    """The name of an image that is here."""
    login = registry_pb2.RegistryLogin(host=registry.host, username=USER, password=PASSWORD)
    name = f"{registry.host}/org/app:v1"
    red_server.images.PullImage(image_pb2.PullImageRequest(name=name, logins=[login]))
    return name


def run(server: Server, home: Path, *arguments: str, code: int = 0) -> str:
    return ingle(server, home, "vm", "run", "--engine", "red", "--kernel", "made-up", "--rm", *arguments, code=code)


def created(server: Server, image: str, **more: object) -> vm_pb2.Vm:
    spec = vm_pb2.VmSpec(image=image, engine="red", kernel="made-up", **more)  # type: ignore[arg-type]
    return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec)).vm


def looked_at(server: Server, vm: vm_pb2.Vm) -> vm_pb2.Vm:
    return server.vms.GetVm(vm_pb2.GetVmRequest(vm=vm.id)).vm


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_image_that_is_not_here_is_pulled_as_its_caller_and_found_here_afterwards(
    red_server: Server, registry: Registry, home: Path
) -> None:
    name = f"{registry.host}/org/app:v1"
    assert run(red_server, home, "--image", name) == "by the entrypoint: nothing else said\n"
    (home / ".docker/config.json").unlink()  # who asked the registry now would be turned away
    assert run(red_server, home, "--image", name) == "by the entrypoint: nothing else said\n"
    image = red_server.images.GetImage(image_pb2.GetImageRequest(image=name)).image
    by_digest = f"{registry.host}/org/app@{image.config.digest}"
    assert "docker login" in run(red_server, home, "--image", by_digest, code=125)
    assert red_server.list() == []
    login = registry_pb2.RegistryLogin(host=registry.host, username=USER, password=PASSWORD)
    spec = vm_pb2.VmSpec(image=by_digest, engine="red", kernel="made-up")
    vm = red_server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, logins=[login])).vm
    assert (vm.image_name, list(vm.workload.command)) == (by_digest, CONFIG["Cmd"])
    found = red_server.images.GetImage(image_pb2.GetImageRequest(image=by_digest)).image
    assert (found.id, found.config.digest) == (vm.image_id, image.config.digest)


def test_a_name_that_is_here_comes_first_then_the_catalogs_and_what_is_nearly_one_is_asked_about(
    red_server: Server, home: Path
) -> None:
    assert created(red_server, "tiny").image_name == "tiny"
    said = run(red_server, home, "--image", "tinny", "true", code=125)
    assert "did you mean tiny?" in said
    assert "--image docker.io/library/tinny:latest" in said
    said = run(red_server, home, "--image", "debian:bookwrom", "true", code=125)
    assert "did you mean debian:bookworm?" in said
    assert "ingle vm run" in run(red_server, home, "localhost:5000/x:1", "true", code=2)
    assert "--image ghcr.io/org/app" in run(red_server, home, "ghcr.io/org/app", code=2)
    spec = vm_pb2.VmSpec(image="No Such Image", engine="red", kernel="made-up")
    assert refused(red_server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=spec)).reason == "IMAGE_NOT_FOUND"


def test_a_command_takes_the_place_of_the_images_and_the_entrypoint_stays(
    red_server: Server, app: str, home: Path
) -> None:
    assert run(red_server, home, "--image", app, "--", "me", "too") == "by the entrypoint: me too\n"
    assert run(red_server, home, "--image", app, "--entrypoint", "/bin/echo", "--", "me") == "me\n"
    assert run(red_server, home, "--image", app, "--", "--too") == "by the entrypoint: --too\n"
    line = 'echo "$COLOUR $(pwd) $(id -u) $(id -g) $PATH"'
    said = run(red_server, home, "--image", app, "--entrypoint", "", "--", "sh", "-c", line)
    assert said == "red /usr 65534 4 /opt/app/bin:/usr/bin:/bin\n"
    own = ("-e", "COLOUR=blue", "-w", "/tmp", "-u", "1:2")
    said = run(red_server, home, "--image", app, *own, "--entrypoint", "sh", "--", "-c", line)
    assert said == "blue /tmp 1 2 /opt/app/bin:/usr/bin:/bin\n"
    assert "leaves nothing to run" in run(red_server, home, "--image", app, "--entrypoint", "", code=2)


def test_on_a_terminal_what_an_image_is_to_run_gets_it(red_server: Server, home: Path, app: str) -> None:
    line = ("vm", "run", "--engine", "red", "--kernel", "made-up", "--rm", "--image", app)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ingle.cli", *line],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "INGLE_SOCKET": str(red_server.socket), "TERM": "xterm"},
        encoding="utf-8",
        timeout=60,
    )
    child.expect("by the entrypoint: nothing else said")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert red_server.list() == []


def test_an_image_that_says_nothing_needs_a_command(red_server: Server, registry: Registry, home: Path) -> None:
    name = f"{registry.host}/org/bare:v1"
    assert "no terminal" in run(red_server, home, "--image", name, code=2)
    assert red_server.list() == []
    vm = created(red_server, name)
    start = guest_pb2.ExecStart(vm=vm.id, with_entrypoint=True)
    error = refused(red_server.guest.Run, guest_pb2.RunRequest(start=start))
    assert (error.reason, "neither an entrypoint nor a command" in error.message) == ("INVALID_ARGUMENT", True)
    assert not vm.HasField("healthcheck")
    assert vm.workload.working_directory == "/"


def test_other_commands_and_terminals_get_what_docker_exec_gives_them(red_server: Server, app: str) -> None:
    vm = created(red_server, app, env={"COLOUR": "green"})
    line = 'echo "$COLOUR $(pwd) $(id -u)"'
    assert red_server.run(vm.id, "sh", "-c", line) == (0, b"green /usr 65534\n", b"")
    assert red_server.run(vm.id, "sh", "-c", line, user="0", working_directory="/tmp") == (0, b"green /tmp 0\n", b"")
    code, env, _ = red_server.run(vm.id, "env")
    assert (code, b"odd.name=kept\n" in env) == (0, True)
    program = guest_pb2.SessionProgram(argv=["sh", "-c", f"{line}; sleep 60"])
    create = guest_pb2.CreateSessionRequest(vm=vm.id, session_id="a", program=program)
    red_server.guest.CreateSession(create)
    start = guest_pb2.AttachSessionRequest(start=guest_pb2.AttachSessionStart(vm=vm.id, session_id="a"))

    def stays() -> Iterator[guest_pb2.AttachSessionRequest]:
        yield start
        time.sleep(60)

    said = b""
    attached = red_server.guest.AttachSession(stays())
    for answer in attached:
        said += answer.scrollback + answer.output
        if b"65534" in said:
            break
    attached.cancel()
    assert b"green /usr 65534" in said
    start_again = guest_pb2.ExecStart(vm=vm.id, argv=["x"], with_entrypoint=True)
    assert red_server.guest.Run(guest_pb2.RunRequest(start=start_again)).stdout_data == b"by the entrypoint: x\n"


def test_what_an_image_says_is_shown_and_stays_when_its_name_is_given_to_another(
    red_server: Server, registry: Registry, app: str, home: Path
) -> None:
    vm = created(red_server, app, name="kept")
    shown = [" ".join(line.split()) for line in ingle(red_server, home, "vm", "show", "kept").splitlines()]
    for line in ("entrypoint /bin/echo 'by the entrypoint:'", "exposes 8080/tcp", "stop signal SIGQUIT"):
        assert line in shown
    registry.push("org/app:v1", [TREE], {**CONFIG, "Cmd": ["another"]})
    ingle(red_server, home, "image", "pull", "--refresh", app)
    try:
        assert looked_at(red_server, vm).workload == vm.workload
        assert created(red_server, app).workload.command == ["another"]
    finally:
        registry.push("org/app:v1", [TREE], CONFIG)
        ingle(red_server, home, "image", "pull", "--refresh", app)


def health_events(server: Server, vm: vm_pb2.Vm) -> list[str]:
    request = event_pb2.WatchEventsRequest(
        after=0, no_follow=True, resource=vm.id, kinds=[event_pb2.EVENT_KIND_VM_HEALTH]
    )
    answers = server.events.WatchEvents(request)
    return [answer.event.attributes["health"] for answer in answers if answer.HasField("event")]


def test_a_healthcheck_is_asked_shown_waited_for_and_told(red_server: Server, home: Path, tmp_path: Path) -> None:
    sign, asked = tmp_path / "sign", tmp_path / "asked"
    line = f"echo x >>{asked}; echo as asked; test -e {sign}"
    options = ("--health-cmd", line, "--health-interval", "1s", "--health-retries", "2")
    place = ("--engine", "red", "--kernel", "made-up", "--image", "tiny", "--name", "asked")
    ingle(red_server, home, "vm", "create", *place, *options)
    vm = red_server.list()[0]
    assert list(vm.healthcheck.test) == ["CMD-SHELL", line]
    eventually(lambda: looked_at(red_server, vm).health.status == UNHEALTHY)
    assert "running, unhealthy" in ingle(red_server, home, "ps")
    health = looked_at(red_server, vm).health
    assert (health.exit_code, health.output, health.failures >= 2) == (1, "as asked", True)
    assert "unhealthy: as asked" in ingle(
        red_server, home, "vm", "wait", "asked", "--for", "healthy", "--timeout", "1s", code=124
    )
    sign.touch()
    ingle(red_server, home, "vm", "wait", "asked", "--for", "healthy", "--timeout", "30s")
    assert "running, healthy" in ingle(red_server, home, "ps")
    assert "healthy, asked" in ingle(red_server, home, "vm", "show", "asked")
    assert health_events(red_server, vm) == ["unhealthy", "healthy"]

    red_server.vms.PauseVm(vm_pb2.PauseVmRequest(vm=vm.id))
    before = asked.stat().st_size
    assert not looked_at(red_server, vm).HasField("health")
    time.sleep(2.5)
    assert asked.stat().st_size <= before + 2  # one that was under way
    assert looked_at(red_server, vm).state == vm_pb2.VM_STATE_PAUSED
    red_server.vms.ResumeVm(vm_pb2.ResumeVmRequest(vm=vm.id))
    eventually(lambda: asked.stat().st_size > before + 2)
    assert looked_at(red_server, vm).health.status == HEALTHY


def test_what_a_healthcheck_has_come_to_is_known_of_a_guest_that_wakes(red_server: Server) -> None:
    check = healthcheck_pb2.Healthcheck(test=["CMD", "true"])
    check.interval.seconds = 60
    vm = created(red_server, "tiny", healthcheck=check)
    eventually(lambda: looked_at(red_server, vm).health.status == HEALTHY)
    red_server.vms.HibernateVm(vm_pb2.HibernateVmRequest(vm=vm.id))
    assert not looked_at(red_server, vm).HasField("health")
    red_server.vms.WakeVm(vm_pb2.WakeVmRequest(vm=vm.id))
    assert looked_at(red_server, vm).health.status == HEALTHY
    assert health_events(red_server, vm) == ["healthy"]


def test_a_healthcheck_keeps_no_vm_from_falling_asleep(red_server: Server) -> None:
    check = healthcheck_pb2.Healthcheck(test=["CMD", "true"])
    check.interval.seconds = 1
    vm = created(red_server, "tiny", healthcheck=check, pause_after={"seconds": 4})
    eventually(lambda: looked_at(red_server, vm).health.status == HEALTHY)
    eventually(lambda: looked_at(red_server, vm).state == vm_pb2.VM_STATE_PAUSED)


def test_a_healthcheck_that_hangs_never_stops_or_is_not_there_fails_within_its_time(red_server: Server) -> None:
    hangs = healthcheck_pb2.Healthcheck(test=["CMD-SHELL", "echo so far; sleep 1000"], retries=1)
    hangs.interval.seconds = hangs.timeout.seconds = 1
    never_stops = healthcheck_pb2.Healthcheck(test=["CMD", "yes"], retries=1)
    never_stops.interval.seconds = 1
    absent = healthcheck_pb2.Healthcheck(test=["CMD", "/no/such/program"], retries=1)
    absent.interval.seconds = 1
    vms = [created(red_server, "tiny", healthcheck=check) for check in (hangs, never_stops, absent)]
    for vm, why in zip(vms, ("it took longer than 1 s", "it said more than 1 MiB", "/no/such/program"), strict=True):
        eventually(lambda vm=vm: looked_at(red_server, vm).health.status == UNHEALTHY)  # type: ignore[misc]
        health = looked_at(red_server, vm).health
        assert (health.exit_code, why in health.output) == (-1, True)
        assert red_server.run(vm.id, "echo", "it serves")[1] == b"it serves\n"


def test_the_images_own_healthcheck_is_taken_as_far_as_nothing_else_is_wished(
    red_server: Server, registry: Registry, home: Path
) -> None:
    said = {"Test": ["CMD-SHELL", "true"], "Interval": 7_000_000_000, "Timeout": 1_000_000, "Retries": 5}
    registry.push("org/checked:v1", [TREE], {"Healthcheck": said})
    name = f"{registry.host}/org/checked:v1"
    ingle(red_server, home, "image", "pull", name)
    own = created(red_server, name).healthcheck
    assert (list(own.test), own.interval.seconds, own.timeout.seconds, own.retries) == (["CMD-SHELL", "true"], 7, 1, 5)
    wish = healthcheck_pb2.Healthcheck(retries=9)
    changed = created(red_server, name, healthcheck=wish).healthcheck
    assert (list(changed.test), changed.interval.seconds, changed.retries) == (["CMD-SHELL", "true"], 7, 9)
    place = ("--engine", "red", "--kernel", "made-up", "--image", name, "--name", "calm", "--no-healthcheck")
    ingle(red_server, home, "vm", "create", *place)
    assert not looked_at(red_server, vm_pb2.Vm(id="calm")).HasField("healthcheck")
    bad = healthcheck_pb2.Healthcheck(test=["CMD-SHELL", "a", "b"])
    spec = vm_pb2.VmSpec(image=name, engine="red", kernel="made-up", healthcheck=bad)
    assert refused(red_server.vms.CreateVm, vm_pb2.CreateVmRequest(spec=spec)).reason == "INVALID_ARGUMENT"
