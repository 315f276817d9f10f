"""Where mmdebstrap gets its packages: from where the host's own apt does. Told by the real apt, of a made-up host."""

from pathlib import Path

import pytest

from ingle.api_server.adapters.rootfs import bootstrap
from ingle.api_server.host.tool import Tools

RELEASE = """Origin: Debian
Label: {label}
Suite: stable
Codename: bookworm
Components: main
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with no sources; the answer is the directory of its configuration."""
    for name in ("lists/partial", "sources.list.d", "apt.conf.d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sources.list").touch()
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "{tmp_path}/sources.list.d";'
        f'Dir::State::lists "{tmp_path}/lists"; Dir::Etc::parts "{tmp_path}/apt.conf.d"; Dir::Cache "{tmp_path}";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def add_mirror(apt: Path, uri: str, suite: str, label: str) -> None:
    """As it is after `apt-get update`: a source, and the release file and index that the mirror gave."""
    with open(apt / "sources.list", "a") as file:
        file.write(f"deb {uri} {suite} main\n")
    prefix = uri.partition("://")[2].replace("/", "_") + f"_dists_{suite}_"
    (apt / "lists" / f"{prefix}InRelease").write_text(RELEASE.format(label=label))
    (apt / "lists" / f"{prefix}main_binary-amd64_Packages").touch()


async def sources(tools: Tools, suite: str) -> list[str]:
    return await bootstrap._sources(tools, suite)


async def test_the_hosts_mirrors_are_used_also_for_another_suite(tools: Tools, apt: Path) -> None:
    add_mirror(apt, "http://mirror.example/debian", "bookworm", "Debian")
    add_mirror(apt, "https://mirror.example/security", "bookworm-security", "Debian-Security")
    assert await sources(tools, "trixie") == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb https://mirror.example/security trixie-security main",
    ]


async def test_without_debians_mirrors_the_choice_is_mmdebstraps(tools: Tools, apt: Path) -> None:
    add_mirror(apt, "http://mirror.example/other", "stable", "Something Else")
    assert await sources(tools, "bookworm") == []


async def test_without_security_updates_the_choice_is_mmdebstraps(tools: Tools, apt: Path) -> None:
    """Rather another mirror than an image without them."""
    add_mirror(apt, "http://mirror.example/debian", "bookworm", "Debian")
    assert await sources(tools, "bookworm") == []


async def test_a_mirror_that_only_the_host_can_reach_is_not_given_to_the_guest(tools: Tools, apt: Path) -> None:
    add_mirror(apt, "file:///srv/mirror", "bookworm", "Debian")
    add_mirror(apt, "http://mirror.example/security", "bookworm-security", "Debian-Security")
    assert await sources(tools, "bookworm") == []


async def test_the_proxy_of_the_hosts_apt_is_used(tools: Tools, apt: Path) -> None:
    (apt / "apt.conf.d" / "proxy").write_text(
        'Acquire::http::Proxy "http://proxy.example:3128"; Acquire::http::Proxy::mirror.example "DIRECT";'
    )
    assert await bootstrap._proxies(tools) == {"http_proxy": "http://proxy.example:3128"}


async def test_the_environments_proxy_comes_first(tools: Tools, apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (apt / "apt.conf.d" / "proxy").write_text('Acquire::http::Proxy "http://proxy.example:3128";')
    monkeypatch.setenv("http_proxy", "http://other.example:3128")
    assert await bootstrap._proxies(tools) == {}


async def test_a_host_without_a_proxy_has_none(tools: Tools, apt: Path) -> None:
    assert await bootstrap._proxies(tools) == {}
