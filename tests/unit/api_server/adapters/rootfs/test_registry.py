"""Images from a real registry, with the program that brings them, up to the ext4 file and what debugfs sees in it."""

import asyncio
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import BadFile, HostProblem, NotFound, Reason
from ingle.api_server.model.image_config import Healthcheck, ImageConfig
from ingle.api_server.model.image_reference import Login
from oci_registry import PASSWORD, USER, Entry, Registry, directory, hard_link, layer, running_registry, symlink
from unit.api_server.adapters.rootfs.nasty_image import BASE, CONFIG, TOP, Pulls


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "open") as registry:
        yield registry


@pytest.fixture(scope="module")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "private", login=True) as registry:
        yield registry


@pytest.fixture
def pulls(tools: Tools, tmp_path: Path) -> Pulls:
    return Pulls(tools, tmp_path, {})


def layers(said: list[str]) -> list[str]:
    """How each came here, sorted."""
    return sorted(line.split()[5].rstrip(",") for line in said if re.search(r"is (cached|ready),", line))


async def test_everything_of_an_image_is_in_the_file_system(registry: Registry, pulls: Pulls, tools: Tools) -> None:
    digest = registry.push("nasty:1", [BASE, TOP], CONFIG, compression=["+gzip", "+zstd"])
    image, config = await pulls(f"{registry.host}/nasty:1")
    await tools.run(["e2fsck", "-f", "-n", image])
    assert config == ImageConfig(
        digest=digest,
        entrypoint=("/entry", "point"),
        command=("serve", "--all"),
        environment=("PATH=/bin", "NAME=ünïcödé"),
        user="app:app",
        directory="/home/app",
        exposed_ports=("53/udp", "80/tcp"),
        stop_signal="SIGINT",
        labels={"who": "we"},
        healthcheck=Healthcheck(("CMD-SHELL", "true"), interval=1500, retries=3),
    )
    root = await pulls.seen(image, "ls -p /")
    names = {line.split("/")[5] for line in root.split("\n") if line.count("/") >= 7}
    assert {"bin", "etc", "home", "lib", "null", "opaque", "pipe", "usr", "zeros", "x" * 255} <= names
    assert "gone" not in names
    assert "ünïcödé \udcff" in root
    assert "old" not in await pulls.seen(image, "ls -p /opaque")
    assert await pulls.seen(image, "cat /opaque/new") == "new"
    assert await pulls.seen(image, "cat /usr/lib/so") == "through the symlink"
    ping = await pulls.seen(image, "stat /bin/ping")
    assert "Mode:  04755" in ping
    assert "security.capability (20)" in ping
    assert re.search(r"Group:\s+42\s", await pulls.seen(image, "stat /etc/shadow"))
    assert "Links: 2" in await pulls.seen(image, "stat /etc/passwd-")
    assert "Type: character special" in await pulls.seen(image, "stat /null")
    assert re.search(r"Type: FIFO.*User:\s+1000\s", await pulls.seen(image, "stat /pipe"), re.DOTALL)
    assert re.search(r"Blockcount: 0\b", await pulls.seen(image, "stat /zeros"))


async def test_a_second_image_fetches_what_differs_and_no_more(registry: Registry, pulls: Pulls) -> None:
    registry.push("first:1", [BASE, TOP], CONFIG)
    other = layer(Entry("other", b"x"))
    registry.push("second:1", [BASE, other], CONFIG, compression=["+gzip", ""])
    await pulls(f"{registry.host}/first:1")
    assert layers(pulls.said) == ["ready", "ready"]
    image, _ = await pulls(f"{registry.host}/second:1")
    assert layers(pulls.said) == ["cached", "ready"]
    assert await pulls.seen(image, "cat /other") == "x"


async def test_images_that_differ_in_their_configuration_are_told_apart(registry: Registry, pulls: Pulls) -> None:
    for tag, command in ((1, "a"), (2, "b")):
        registry.push(f"same:{tag}", [BASE], {"Cmd": [command]})
    superblocks = [(await pulls(f"{registry.host}/same:{tag}"))[0].read_bytes()[1024:2048] for tag in (1, 1, 2)]
    uuids = [superblock[0x68:0x78] for superblock in superblocks]
    assert uuids[0] == uuids[1] != uuids[2]


async def test_the_image_for_this_machine_is_taken_of_many(registry: Registry, pulls: Pulls) -> None:
    ours = registry.push("many:ours", [layer(Entry("arch", b"amd64"))])
    theirs = registry.push("many:theirs", [layer(Entry("arch", b"arm64"))], architecture="arm64")
    index = registry.push_index("many:1", {"arm64": theirs, "amd64": ours})
    for reference in ("many:1", f"many@{index}", f"many@{ours}"):
        image, config = await pulls(f"{registry.host}/{reference}")
        assert config.digest == ours
        assert await pulls.seen(image, "cat /arch") == "amd64"
    registry.push_index("many:2", {"arm64": theirs})
    with pytest.raises(NotFound, match="nothing for linux/amd64; there is: linux/arm64"):
        await pulls(f"{registry.host}/many:2")


async def test_a_private_registry_takes_the_login_of_who_calls(private_registry: Registry, pulls: Pulls) -> None:
    private_registry.push("app:1", [BASE])
    reference = f"{private_registry.host}/app:1"
    wrong = {private_registry.host: Login(USER, "wrong")}
    elsewhere = {"127.0.0.1:1": Login(USER, PASSWORD)}
    for logins in ({}, wrong, elsewhere):
        with pytest.raises(HostProblem) as raised:
            await pulls(reference, logins)
        assert raised.value.reason is Reason.REGISTRY_DENIED
        assert f"docker login {private_registry.host}" in raised.value.remedy
    await pulls(reference, {private_registry.host: Login(USER, PASSWORD)})


async def test_mirrors_are_asked_first_and_may_be_gone(registry: Registry, tools: Tools, tmp_path: Path) -> None:
    registry.push("mirrored/library/thing:1", [layer(Entry("from", b"the mirror"))])
    registry.push("thing:1", [layer(Entry("from", b"the registry"))])
    mirrors = {"docker.io": ["127.0.0.1:1", f"{registry.host}/mirrored"], registry.host: ["127.0.0.1:1"]}
    pulls = Pulls(tools, tmp_path, mirrors)
    image, _ = await pulls("docker.io/library/thing:1")
    assert await pulls.seen(image, "cat /from") == "the mirror"
    assert any("mirror 127.0.0.1:1:" in line for line in pulls.said)
    image, _ = await pulls(f"{registry.host}/thing:1")
    assert await pulls.seen(image, "cat /from") == "the registry"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([Entry("../../etc/cron.d/evil", b"x")], "'..' is not allowed"),
        ([symlink("a", "/etc"), hard_link("b", "a/passwd")], "not there"),
        ([Entry("a", b"1"), Entry("./a", b"2")], "twice"),
        ([Entry("d/.wh...")], "of nothing that can be"),
        ([Entry("a", type=tarfile.CHRTYPE, device=(1 << 20, 0))], "with numbers that none has"),
        ([directory("only-directories")], "holds no files"),
    ],
)
async def test_hostile_layers_are_refused_and_leave_nothing(
    registry: Registry, pulls: Pulls, entries: list[Entry], said: str, tmp_path: Path
) -> None:
    registry.push("hostile:1", [layer(*entries)])
    with pytest.raises(BadFile, match=said) as raised:
        await pulls(f"{registry.host}/hostile:1")
    assert raised.value.reason is Reason.IMAGE_INVALID


@pytest.mark.parametrize(
    "config",
    [{"Env": ["A=b\0c"]}, {"Cmd": ["a\0"]}, {"User": "\0"}, {"Healthcheck": {"Test": ["CMD", "a\0"]}}],
    ids=lambda config: next(iter(config)),
)
async def test_a_configuration_that_no_command_could_be_given_is_refused(
    registry: Registry, pulls: Pulls, config: dict[str, object]
) -> None:
    registry.push("hostile:config", [BASE], config)
    with pytest.raises(BadFile, match=r"configuration.*NUL") as raised:
        await pulls(f"{registry.host}/hostile:config")
    assert raised.value.reason is Reason.IMAGE_INVALID


async def test_what_the_registry_has_lost_or_damaged_is_told(registry: Registry, pulls: Pulls, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such image"):
        await pulls(f"{registry.host}/nobody:1")
    with pytest.raises(HostProblem, match="connection refused") as raised:
        await pulls("127.0.0.1:1/x:1")
    assert raised.value.reason is Reason.REGISTRY_UNREACHABLE
    registry.push(
        "damaged:1", [layer(Entry("lost", b"x"))], change=lambda manifest: manifest["layers"][0].update(size=10)
    )
    with pytest.raises(BadFile, match="something else in the place of"):
        await pulls(f"{registry.host}/damaged:1")
    assert not any((tmp_path / "cache/layers/layers").iterdir())


async def test_a_cancelled_pull_ends_its_processes_and_the_next_one_goes_on(registry: Registry, pulls: Pulls) -> None:
    registry.push("large:1", [layer(Entry(f"{number}", bytes([number]) * (4 << 20))) for number in range(6)])
    pull = asyncio.create_task(pulls(f"{registry.host}/large:1"))
    while not any("layer" in line for line in pulls.said):
        await asyncio.sleep(0.01)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    image, _ = await pulls(f"{registry.host}/large:1")
    assert "Size: 4194304" in await pulls.seen(image, "stat /5")
