"""Images of registries through the server and the command line: what a name means, whose login it is, what stays."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Server, refused
from ingle.testing import made_up
from ingle.v1 import image_pb2, kernel_pb2, registry_pb2, vm_pb2
from oci_registry import PASSWORD, USER, Entry, Registry, layer, running_registry
from uploading import kernel_upload

TREE = layer(Entry("etc/hostname", b"of a registry"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "private", login=True) as registry:
        registry.push("org/app:v1", [TREE], {"Entrypoint": ["/app"], "Cmd": ["--serve it"], "User": "app"})
        yield registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Without anything of this machine's."""
    return tmp_path


def ingle(server: Server, home: Path, *arguments: str, code: int = 0) -> str:
    """What it said, on both streams."""
    environment = {
        "HOME": str(home),
        "PATH": f"{home}:{os.environ['PATH']}",
        "INGLE_SOCKET": str(server.socket),
        "LC_ALL": "C.UTF-8",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "ingle.cli", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    said = ended.stdout.decode()
    assert ended.returncode == code, said
    return said


def keep_login(home: Path, **config: object) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps(config))


def pulled(server: Server, name: str) -> image_pb2.Image:
    return server.images.GetImage(image_pb2.GetImageRequest(image=name)).image


def test_dockers_own_login_pulls_an_image_that_says_how_it_is_to_be_run(
    server: Server, registry: Registry, home: Path
) -> None:
    name = f"{registry.host}/org/app:v1"
    said = ingle(server, home, "image", "pull", name, code=1)
    assert f"docker login {registry.host}" in said
    keep_login(home, auths={registry.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}})
    ingle(server, home, "image", "pull", name)
    image = pulled(server, name)
    assert image.source == name
    assert image.config.entrypoint == ["/app"]
    shown = [line.split(maxsplit=1) for line in ingle(server, home, "image", "show", name).splitlines()]
    assert ["entrypoint", "/app"] in shown
    assert ["command", "'--serve it'"] in shown
    assert ["digest", image.config.digest] in shown
    (home / ".docker/config.json").unlink()
    ingle(server, home, "image", "pull", name)  # it is here
    ingle(server, home, "image", "pull", "--refresh", name, code=1)
    assert pulled(server, name) == image
    ingle(server, home, "image", "delete", name)


def test_a_credential_helper_is_asked_with_the_callers_rights(server: Server, registry: Registry, home: Path) -> None:
    helper = home / "docker-credential-test"
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\ncat >{home}/asked\necho '{answer}'\n")
    helper.chmod(0o755)
    keep_login(home, credHelpers={registry.host: "test"})
    ingle(server, home, "image", "pull", f"{registry.host}/org/app:v1")
    assert (home / "asked").read_text() == registry.host
    helper.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
    said = ingle(server, home, "image", "pull", "--refresh", f"{registry.host}/org/app:v1", code=1)
    assert f"docker login {registry.host}" in said
    ingle(server, home, "image", "delete", f"{registry.host}/org/app:v1")


def test_a_login_that_cannot_be_read_is_told_before_anything_is_asked(server: Server, home: Path) -> None:
    keep_login(home, auths={"127.0.0.1:1": {"auth": "no base64"}})
    assert "its login at 127.0.0.1:1 can't be read" in ingle(server, home, "image", "pull", "127.0.0.1:1/x", code=1)
    (home / ".docker/config.json").write_text("{")
    assert "config.json" in ingle(server, home, "image", "pull", "127.0.0.1:1/x", code=1)


def test_nobody_hears_of_a_login(server: Server, registry: Registry) -> None:
    """Not whoever looks at the server's processes or reads its log, and it is in no file."""
    login = registry_pb2.RegistryLogin(host=registry.host, username=USER, password="a password that is wrong")
    request = image_pb2.PullImageRequest(name=f"{registry.host}/org/app:v1", refresh=True, logins=[login])
    assert refused(server.images.PullImage, request).reason == "REGISTRY_DENIED"
    assert "a password that is wrong" not in server.said()
    files = [path for path in server.root.rglob("*") if path.is_file() and path.stat().st_size < 64 << 20]
    assert [path for path in files if b"a password that is wrong" in path.read_bytes()] == []


def test_a_name_of_the_catalog_is_ingles_own_and_nearly_one_is_asked_about(server: Server, home: Path) -> None:
    said = ingle(server, home, "image", "pull", "debian:bookwrom", code=1)
    assert "did you mean debian:bookworm?" in said
    assert "ingle image pull docker.io/library/debian:bookwrom" in said
    assert "did you mean debian:bookworm?" in ingle(server, home, "image", "pull", "debian", code=1)
    assert "neither of the catalog nor a reference" in ingle(server, home, "image", "pull", "No Such", code=1)


@pytest.mark.parametrize(
    "wish",
    [
        image_pb2.PullImageRequest(
            name="127.0.0.1:1/x", logins=[registry_pb2.RegistryLogin(host=f"h{number}") for number in range(21)]
        ),
        image_pb2.PullImageRequest(name="127.0.0.1:1/x", logins=[registry_pb2.RegistryLogin(password="x" * 5000)]),
        image_pb2.PullImageRequest(name=""),
        image_pb2.PullImageRequest(name="../../etc"),
    ],
)
def test_what_is_too_much_or_no_reference_is_refused(server: Server, wish: image_pb2.PullImageRequest) -> None:
    assert refused(server.images.PullImage, wish).reason == "INVALID_ARGUMENT"


def test_an_image_boots_with_the_kernel_that_it_asks_for_unless_its_caller_says_another(
    server: Server, tmp_path: Path
) -> None:
    with running_registry(tmp_path / "open") as registry:
        for tag, wanted in (("there", "special:v1"), ("not-there", "specail:v1"), ("nonsense", "; rm -rf /")):
            registry.push(f"kernels:{tag}", [TREE], {"Labels": {"dev.ingle.kernel": wanted}})
            if tag != "there":  # that is pulled for the VM
                server.images.PullImage(image_pb2.PullImageRequest(name=f"{registry.host}/kernels:{tag}"))
        server.kernels.ImportKernel(kernel_upload("special:v1", made_up.elf(text=made_up.VMLINUX[0x1000:] + b"other")))
        server.kernels.ImportKernel(kernel_upload("plain", made_up.VMLINUX))

        def create(tag: str, kernel: str = "") -> vm_pb2.Vm:
            spec = vm_pb2.VmSpec(image=f"{registry.host}/kernels:{tag}", kernel=kernel)
            return server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, no_start=True)).vm

        vms = [create("there"), create("there", "plain"), create("not-there", "plain")]
        assert [vm.kernel_name for vm in vms] == ["special:v1", "plain", "plain"]
        missing = refused(create, "not-there")
        assert (missing.reason, missing.remedy) == ("KERNEL_NOT_FOUND", "--kernel debian, to boot it with that one")
        assert "dev.ingle.kernel: no kernel 'specail:v1'" in missing.message
        assert "did you mean special:v1?" in missing.message
        assert refused(create, "nonsense").reason == "KERNEL_NOT_FOUND"
        for vm in vms:
            server.vms.DeleteVm(vm_pb2.DeleteVmRequest(vm=vm.id))
        for tag in ("there", "not-there", "nonsense"):
            server.images.DeleteImage(image_pb2.DeleteImageRequest(image=f"{registry.host}/kernels:{tag}"))
        for name in ("special:v1", "plain"):
            server.kernels.DeleteKernel(kernel_pb2.DeleteKernelRequest(kernel=name))
