"""libnftables and the program nft do the same, and say what they would not."""

from collections.abc import Callable, Iterator

import pytest

from helper.namespaces import Namespace
from ingle.host_helper import nft
from ingle.host_helper.errors import KernelRefused
from ingle.host_helper.firewall import Firewall
from ingle.host_helper.names import Addresses
from ingle.host_helper.nft import Nft, open_nft
from ingle.host_helper.policy import parse
from ingle.host_helper.state import Nat, Network, Protocol, Published, State, Tap

ADDRESSES = Addresses.of(parse({"user": 4242}, "here"))
BEFORE = State([Network(0), Tap(2, "a" * 12)])
AFTER = BEFORE.plus(Tap(3, "b" * 12), Nat(3), Published(Protocol.TCP, 8080, 3, 80)).minus([Tap(2, "a" * 12)])


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


def with_library(monkeypatch: pytest.MonkeyPatch) -> Nft:
    return open_nft()


def without_library(monkeypatch: pytest.MonkeyPatch) -> Nft:
    monkeypatch.setattr(nft, "_LIBRARY", "libnftables.so.none")
    return open_nft()


def rules(namespace: Namespace, tool: Nft) -> list[str]:
    """After each of: all at once, a change, a change back, nothing."""
    firewall = Firewall(tool, ADDRESSES, 1)
    said = []
    steps: list[Callable[[], None]] = [
        lambda: firewall.replace(BEFORE),
        lambda: firewall.change(BEFORE, AFTER),
        lambda: firewall.change(AFTER, BEFORE),
        firewall.remove,
    ]
    for step in steps:
        step()
        said.append(namespace.run("nft", "list", "ruleset"))
    return said


def test_both_make_the_same_rules(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    library = namespace.do(lambda: rules(namespace, with_library(monkeypatch)))
    program = namespace.do(lambda: rules(namespace, without_library(monkeypatch)))
    assert library == program
    assert library[0] == library[2] != library[1]
    assert library[3] == ""


@pytest.mark.parametrize("make", [with_library, without_library])
def test_a_refusal_says_why_and_changes_nothing(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, make: Callable[[pytest.MonkeyPatch], Nft]
) -> None:
    def refused() -> str:
        tool = make(monkeypatch)
        with pytest.raises(KernelRefused) as raised:
            tool.run("add table inet x\nadd rule inet x nowhere drop\n")
        tool.run("add table inet y\n")
        return raised.value.message

    assert "No such file or directory" in namespace.do(refused)
    assert namespace.run("nft", "list", "tables") == "table inet y\n"


def test_both_list_the_same(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace.run("nft", "add table inet x; add set inet x many { type ipv4_addr; elements = { 192.0.2.1 }; }")
    library = namespace.do(lambda: with_library(monkeypatch).ruleset())
    assert library == namespace.do(lambda: without_library(monkeypatch).ruleset())
    assert "many" in str(library)
    assert "192.0.2.1" not in str(library)
