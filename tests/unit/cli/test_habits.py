"""What people type who know other tools is answered with what it is here."""

import pytest

from ingle.cli.habits import command_meant, extra_argument_meant, is_image, no_command, option_meant, replacement

_HERE = ["run", "exec", "shell", "ps", "vm", "image", "kernel", "server", "version", "delete", "prune", "stop", "kill"]
_OF_VMS = ["show", "rename", "inspect", "stop", "start", "rm", "cp", "logs", "list"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stop web", ": it is `ingle vm stop web`"),
        ("rm -f web", ": it is `ingle vm rm -f web`"),
        ("cp web:/etc .", ": it is `ingle vm cp web:/etc .`"),
        ("top", ": it is `ingle vm stats --watch`"),
        ("inspect web", ": it is `ingle vm inspect web`"),
        ("ssh web", ": it is `ingle vm shell web`"),
        ("rename web shop", ": it is `ingle vm rename web shop`"),
        ("unpause web", ": it is `ingle vm resume web`"),
        ("suspend web", ": it is `ingle vm pause web`"),
        ("info", ": it is `ingle doctor`"),
        ("info web", ": it is `ingle vm show web`"),
        ("status", ": it is `ingle vm list`"),
        ("build .", ": it is `ingle image build .`"),
        ("volume ls", ": a VM shares no directory with this machine: `ingle vm cp` copies into it and out of it"),
        ("verison", ": did you mean version?"),
    ],
)
@pytest.mark.parametrize("group", ["", "vm"])
def test_a_word_of_other_tools_is_answered_with_ours(group: str, typed: str, meant: str) -> None:
    words = typed.split()
    if group == "vm" and words[0] in _OF_VMS:
        return
    assert command_meant(group, words, _HERE, _OF_VMS) == meant


@pytest.mark.parametrize(
    ("group", "typed", "meant"),
    [
        ("system", "df -v", "df -v"),
        ("system", "info", "doctor"),
        ("config", "list", "config show"),
        ("config", "ls", "config show"),
        ("", "man", "help --man"),
        ("", "man vm run", "help vm run"),
        ("", "label web team=shop ci-", "vm update web --label team=shop --label ci-"),
        ("vm", "label web team=shop", "vm update web --label team=shop"),
        ("", "verison", ""),
    ],
)
def test_a_word_of_other_tools_has_one_line_to_type_instead(group: str, typed: str, meant: str) -> None:
    assert replacement(group, typed.split(), _OF_VMS) == meant


@pytest.mark.parametrize("typo", ["delte", "deleet", "prun", "kil", "pruen", "restrat", "stpo"])
def test_no_slip_of_the_finger_is_led_to_what_takes_something_away(typo: str) -> None:
    said = command_meant("vm", [typo], ["delete", "kill", "prune", "restart", "rm", "stop"], [])
    assert said == ""


def test_an_image_where_a_command_belongs_is_given_as_an_option() -> None:
    said = no_command("ingle run", ["--rm", "-m", "1G"], ["ubuntu:24.04", "sh", "-c", "make all"])
    assert "ingle run --rm -m 1G --image ubuntu:24.04 -- sh -c 'make all'" in said
    assert "ingle run --image ubuntu " in no_command("ingle run", [], ["ubuntu"])
    assert "ingle run --image localhost:5000/x:1 -- sh" in no_command("ingle run", [], ["localhost:5000/x:1", "sh"])
    assert "ingle run --image mine " in no_command("ingle run", [], ["mine"], {"mine"})


@pytest.mark.parametrize("share", ["/a:/b", "./src:/src:ro", "data:/var/lib"])
def test_a_directory_to_share_is_no_command(share: str) -> None:
    assert "ingle vm cp" in no_command("ingle vm run", ["-v"], [share, "ls"])


@pytest.mark.parametrize("command", ["uname", "/bin/ls", "python3", "./a:b c", "http://example.com/"])
def test_commands_are_left_alone(command: str) -> None:
    assert no_command("ingle vm run", [], [command]) == ""


def test_options_of_other_tools_name_ours() -> None:
    assert option_meant("--cpus") == "it is --vcpu"
    assert "ingle vm cp" in option_meant("--volume")
    assert option_meant("--nonsense") == ""


def test_a_name_or_an_image_that_came_without_its_option() -> None:
    assert extra_argument_meant("web") == "did you mean --name web?"
    assert extra_argument_meant("debian:trixie") == "did you mean --image debian:trixie?"


_OF_SNAPSHOTS = ["create", "list", "ls", "show", "inspect", "delete", "rm"]


@pytest.mark.parametrize(
    ("group", "typed", "meant"),
    [
        ("vm", "snapshots web", "snapshot list --filter vm=web"),  # `snapshot list web` is refused
        ("", "checkpoint create web before", "snapshot create web before"),
        ("", "checkpoint ls web", "snapshot list --filter vm=web"),
        ("vm", "snapshot web", "snapshot create web"),
        ("vm", "snapshot web before", "snapshot create web before"),
        ("snapshot", "restore web before", "vm restore web before"),  # incus'; "did you mean create?" makes one
        ("snapshot", "fork before", "vm fork before"),
        ("snapshot", "info before", "snapshot show before"),
        ("snapshot", "remove before", "snapshot delete before"),
        ("vm", "freeze web", "vm pause web"),
        ("vm", "copy web other", "vm fork web --name other"),  # incus copy; "did you mean cp?"
    ],
)
def test_a_word_of_other_tools_about_snapshots_has_one_line_that_runs(group: str, typed: str, meant: str) -> None:
    assert replacement(group, typed.split(), []) == meant


def test_who_wants_to_put_a_vm_back_is_not_led_to_make_a_snapshot() -> None:
    assert "create" not in command_meant("snapshot", ["restore", "web", "before"], _OF_SNAPSHOTS, [])


@pytest.mark.parametrize(
    "word",
    [
        *["python:3.12", "alpine", "ghcr.io/org/app", "localhost/x", "registry:5000/x", "org/app:v1"],
        *[f"app@sha256:{'0' * 64}", "docker://debian:bookworm", "quay.io:443/org/app:v1@sha256:" + "f" * 64],
    ],
)
def test_what_looks_like_an_image(word: str) -> None:
    assert is_image(word)


@pytest.mark.parametrize(
    "word", ["sh", "./run.sh", "/bin/sh", "bin/app", "python3.11", "a b", "localhost", "../x", "-x"]
)
def test_what_does_not(word: str) -> None:
    assert not is_image(word)
