"""What people type who know other tools, and what it is here."""

import re
import shlex
from collections.abc import Collection, Sequence
from difflib import get_close_matches

_COPIES = "a VM shares no directory with this machine: `ingle vm cp` copies into it and out of it"
_ROOT = "root in a VM may do everything there"
_JSON = "it is --json, for jq and its like"
_OPTIONS = {
    "-v": _COPIES,
    "--volume": _COPIES,
    "--mount": _COPIES,
    "--cpus": "it is --vcpu",
    "--cpu": "it is --vcpu",
    "--ram": "it is --memory",
    "--disk": "it is --disk-size",
    "--port": "it is --publish",
    "--expose": "it is --publish",
    "--hostname": "a VM's --name is also its hostname",
    "--entrypoint": "put -- and the command behind the options",
    "--env-file": "it is --env, once for each variable",
    "--privileged": _ROOT,
    "--cap-add": _ROOT,
    "--interactive": "it is --stdin",
    "--format": _JSON,
    "--filter": _JSON,
}

# None takes anything away, or brings it to a halt: a slip of the finger must not lead there.
_NEVER_SUGGESTED = {"cancel", "delete", "kill", "prune", "restart", "rm", "stop", "uninstall"}

_WORDS = {
    "attach": "vm shell",
    "connect": "vm shell",
    "console": "vm logs",
    "destroy": "vm delete",
    "describe": "vm show",
    "df": "vm stats",
    "images": "image list",
    "events": "operation list",
    "info": "vm show",
    "inspect": "vm show",
    "kernels": "kernel list",
    "launch": "vm run",
    "log": "vm logs",
    "login": "vm shell",
    "port": "vm ports",
    "poweroff": "vm stop",
    "pull": "image pull",
    "reboot": "vm restart",
    "remove": "vm delete",
    "spawn": "vm create",
    "ssh": "vm shell",
    "status": "vm show",
    "top": "vm stats --watch",
    "vms": "vm list",
}
# What shows a thing, typed without one: how all is.
_OF_ALL = {"info": "doctor", "status": "vm list"}
# Of a file or directory, which those tools take as an argument, and whose name here only its owner knows.
_REGISTERS = {"add", "build", "create", "import", "load", "register"}
_OF_VMS = {"container", "containers", "instance", "machine"}
_OF_LIBRARIES = {
    "get": "show",
    "info": "show",
    "inspect": "show",
    "remove": "delete",
}
_NOTHING_PAUSES = "a VM runs or is stopped, none is paused"
_SENTENCES = {
    "pause": _NOTHING_PAUSES,
    "unpause": _NOTHING_PAUSES,
    "suspend": _NOTHING_PAUSES,
    "network": "a network comes to be with the first VM in it (--network), and goes with the last",
    "volume": _COPIES,
}

_SHARE = re.compile(r"[^:]*:/(?!/).*")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][\w.-]*", re.ASCII)
_DISTRIBUTIONS = {
    "almalinux",
    "alpine",
    "amazonlinux",
    "archlinux",
    "centos",
    "debian",
    "fedora",
    "rockylinux",
    "ubuntu",
}


def command_meant(group: str, words: Sequence[str], here: Collection[str], of_vms: Collection[str]) -> str:
    """What an unknown command stands for: the end of "No such command". `words`: the command and what follows it.
    `group`: the words before it, after `ingle`. `here`: the commands that there are; `of_vms`: those of `ingle vm`."""
    word, *rest = words
    if word in _SENTENCES and group in {"", "vm"}:
        return f": {_SENTENCES[word]}"
    if meant := _replacement(group, word, rest, of_vms):
        return f": it is `ingle {meant}`"
    close = get_close_matches(word, [name for name in here if name not in _NEVER_SUGGESTED], n=2)
    return f": did you mean {' or '.join(close)}?" if close else ""


def _replacement(group: str, word: str, rest: Sequence[str], of_vms: Collection[str]) -> str:
    """Can be typed as it is: what another tool takes with it and ours does not is left out."""
    words: Sequence[str] = []
    if word == "help":
        words = [*group.split(), *rest[:1], "--help"]
    elif group == "" and word in of_vms:
        words = ["vm", word, *rest]
    elif word in _REGISTERS and group in {"", "vm", "image", "kernel"}:
        words = _registration("kernel" if group == "kernel" else "image", rest)
    elif group in {"image", "kernel"} and word in _OF_LIBRARIES:
        words = [group, _OF_LIBRARIES[word], *_without_force(rest)]
    elif group in {"", "vm"}:
        words = _for_vms(word, rest)
    return shlex.join(words)


def _for_vms(word: str, rest: Sequence[str]) -> Sequence[str]:
    if word == "rename":
        return ["vm", "set", rest[0], "--name", rest[1]] if len(rest) == 2 else ["vm", "set", "--help"]
    if word == "rmi":
        return ["image", "delete", *_without_force(rest)]
    if word in _OF_VMS:
        return ["vm", *(rest or ["--help"])]
    if word in _OF_ALL and not rest:
        return _OF_ALL[word].split()
    return [*_WORDS[word].split(), *rest] if word in _WORDS else []


def _registration(group: str, rest: Sequence[str]) -> Sequence[str]:
    verb = "import" if group == "kernel" else "register"
    named = any(word in {"-n", "--name"} or word.startswith("--name=") for word in rest)
    return [group, verb, *(rest if named else ["--help"])]


def _without_force(words: Sequence[str]) -> list[str]:
    """Nothing in use is deleted, so there is nothing to force."""
    return [word for word in words if word not in {"-f", "--force"}]


def option_meant(option: str) -> str:
    """What an unknown option stands for; empty when nobody knows."""
    return _OPTIONS.get(option, "")


def extra_argument_meant(word: str) -> str:
    """What an argument too many of a command that creates a VM stands for."""
    if _SHARE.fullmatch(word):
        return _COPIES
    return f"did you mean {'--image' if is_image(word) else '--name'} {shlex.quote(word)}?"


def no_command(command_path: str, options: Sequence[str], words: Sequence[str], images: Collection[str] = ()) -> str:
    """Why the first of the words can't be meant as a guest command, and what to type instead; empty when it may be.
    `options`: what was typed before it. `images`: names of those that are here."""
    word, *rest = words
    if _SHARE.fullmatch(word):
        return f"{word!r} is no command; {_COPIES}"
    if is_image(word) or word in images:
        command = ["--", *rest] if rest else []
        typed = f"{command_path} {shlex.join([*options, '--image', word, *command])}"
        catalog = "" if word in images else "ingle image catalog shows which there are; "
        return f"{word!r} is an image, no command: {typed} ({catalog}put -- before a command of that name)"
    return ""


def is_image(word: str) -> bool:
    """Whether it looks like the name of an image, and not like a command."""
    return word in _DISTRIBUTIONS or _IMAGE.fullmatch(word) is not None
