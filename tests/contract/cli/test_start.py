"""What a short command loads. Start-up time is a feature; modules are counted since clocks are not to be trusted in
tests."""

import pytest

from contract.cli.conftest import Ingle
from contract.cli.world import World

_HEAVY = {"asyncio", "concurrent", "email", "grpc", "http", "importlib.metadata", "pyroute2", "rich", "ssl", "tempfile"}
_FOR_CALLS = {"google", "h2", "ingle.v1", "socket"}
_FOR_SOME = {"google.rpc", "json", "tarfile"}
_IN_PYTHON = {"google.protobuf.internal.decoder", "google.protobuf.text_format"}
"""What protobuf has for where it has no C."""


async def loaded_by(ingle: Ingle, *arguments: str) -> set[str]:
    """All modules that a command has loaded when it ends well, packages included."""
    finished = await ingle.with_variables(PYTHONPROFILEIMPORTTIME="1")(*arguments)
    lines = [line for line in finished.err.splitlines() if line.startswith("import time:")]
    assert finished.code == 0, finished.err
    loaded = {line.rpartition("|")[2].strip() for line in lines}
    assert "typer" in loaded, "the list is one of modules"
    return loaded


def contracts_but(*nouns: str) -> set[str]:
    others = {"guest", "image", "kernel", "operation", "system", "upload", "vm"}.difference(nouns)
    return {f"ingle.v1.{other}_pb2" for other in others}


def among(loaded: set[str], unwanted: set[str]) -> set[str]:
    return {module for module in loaded if any(f"{module}.".startswith(f"{name}.") for name in unwanted)}


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("vm", "--help"), ("completion", "bash")], ids=" ".join
)
async def test_what_asks_no_server_loads_nothing_that_could(isolated: Ingle, arguments: tuple[str, ...]) -> None:
    assert among(await loaded_by(isolated, *arguments), _HEAVY | _FOR_CALLS | _FOR_SOME) == set()


@pytest.mark.parametrize("arguments", [("vm", "list"), ("ps", "-q"), ("vm", "delete", "--force", "web")], ids=" ".join)
async def test_a_short_command_loads_only_what_it_needs(ingle: Ingle, world: World, arguments: tuple[str, ...]) -> None:
    world.add_vm("web")
    assert among(await loaded_by(ingle, *arguments), _HEAVY | _FOR_SOME | _IN_PYTHON) == set()


async def test_a_command_in_a_guest_loads_only_what_it_needs(with_an_agent: tuple[Ingle, int]) -> None:
    ingle, _ = with_an_agent
    loaded = await loaded_by(ingle, "vm", "exec", "web", "--", "true")
    assert among(loaded, _HEAVY | _FOR_SOME | _IN_PYTHON | contracts_but("guest", "upload")) == set()


async def test_a_list_loads_the_contract_of_what_it_lists(ingle: Ingle) -> None:
    assert among(await loaded_by(ingle, "vm", "list"), contracts_but("vm")) == set()
