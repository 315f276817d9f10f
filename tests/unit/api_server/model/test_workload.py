"""What an image says of how it is to be run: docker's rules."""

import pytest

from ingle.api_server.model.errors import InvalidArgument
from ingle.api_server.model.guest import ExecSpec, SessionProgram
from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.signals import signal_number
from ingle.api_server.model.workload import Workload

SAYS = Workload.of(
    ImageConfig(
        digest="sha256:x",
        entrypoint=("serve",),
        command=("--all",),
        environment=("A=1=2", "B=", "C", "=nothing"),
        user="app:app",
        directory="srv",
        stop_signal="SIGRTMIN+3",
    )
)


def test_a_command_takes_the_place_of_the_images_behind_its_entrypoint() -> None:
    assert SAYS.completed(ExecSpec(("-v",), with_entrypoint=True)).argv == ("serve", "-v")
    assert SAYS.completed(ExecSpec((), with_entrypoint=True)).argv == ("serve", "--all")
    assert SAYS.completed(ExecSpec(("ls",))) == ExecSpec(("ls",), user="app:app", working_directory="/srv")
    assert SAYS.completed(SessionProgram(with_entrypoint=True)).argv == ("serve", "--all")
    assert SAYS.completed(SessionProgram(user="root")).user == "root"


def test_what_is_run_with_the_entrypoint_ends_by_the_images_signal() -> None:
    assert SAYS.completed(ExecSpec((), with_entrypoint=True)).stop_signal == 37
    assert SAYS.completed(ExecSpec(("ls",))).stop_signal == 0


def test_variables_are_names_with_values() -> None:
    assert SAYS.environment == {"A": "1=2", "B": "", "C": ""}


def test_an_image_that_says_nothing_leaves_all_as_it_is() -> None:
    assert Workload.of(None).completed(ExecSpec(("ls",))) == ExecSpec(("ls",))
    assert Workload.of(ImageConfig(digest="")).directory == "/"
    with pytest.raises(InvalidArgument, match="neither an entrypoint nor a command"):
        Workload.of(None).completed(ExecSpec((), with_entrypoint=True))
    assert Workload.of(None).completed(SessionProgram(with_entrypoint=True)).argv == ()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("SIGQUIT", 3), ("term", 15), ("9", 9), ("64", 64), ("RTMIN", 34), ("SIGRTMAX-1", 63), (" SIGHUP ", 1)],
        *[("", 0), ("SIGNOTHING", 0), ("65", 0), ("-1", 0), ("RTMIN+40", 0), ("9" * 5000, 0), ("٣", 0)],
    ],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert signal_number(text) == number
