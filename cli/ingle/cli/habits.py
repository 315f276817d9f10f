"""What people type who know other tools, and what it is here."""

import re
import shlex
from collections.abc import Collection, Sequence
from difflib import get_close_matches

_COPIES = "a VM shares no directory with this machine: `ingle vm cp` copies into it and out of it"
_ROOT = "root in a VM may do everything there"
_JSON = "lists, show and inspect have --format; all else has --json, for jq and its like"
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
    "-P": "it is --publish with each port: `ingle image show` tells which an image has",
    "--publish-all": "it is --publish with each port: `ingle image show` tells which an image has",
    "--pull": "what is not here is pulled; `ingle image pull --refresh` brings what the name is by now",
    "--hostname": "a VM's --name is also its hostname",
    "--privileged": _ROOT,
    "--cap-add": _ROOT,
    "--interactive": "it is --stdin",
    "--format": _JSON,
    "--output": _JSON,
    "-o": _JSON,
    "--no-stream": "it is so without --watch",
    "--selector": "it is --filter label=KEY or label=KEY=VALUE",
}

# None takes anything away, or brings it to a halt: a slip of the finger must not lead there.
_NEVER_SUGGESTED = {
    "cancel",
    "delete",
    "hibernate",
    "kill",
    "pause",
    "prune",
    "restart",
    "restore",
    "rm",
    "stop",
    "uninstall",
}

_WORDS = {
    "attach": "vm shell",
    "build": "image build",
    "clone": "vm fork",
    "commit": "snapshot create",
    "connect": "vm shell",
    "console": "vm logs",
    "destroy": "vm delete",
    "describe": "vm show",
    "images": "image list",
    "info": "vm show",
    "kernels": "kernel list",
    "launch": "vm run",
    "load": "image load",
    "log": "vm logs",
    "freeze": "vm pause",
    "login": "vm shell",
    "port": "vm ports",
    "poweroff": "vm stop",
    "pull": "image pull",
    "reboot": "vm restart",
    "remove": "vm delete",
    "spawn": "vm create",
    "ssh": "vm shell",
    "status": "vm show",
    "suspend": "vm pause",
    "tag": "image tag",
    "top": "vm stats --watch",
    "unpause": "vm resume",
    "vms": "vm list",
}
# What shows a thing, typed without one: how all is.
_OF_ALL = {"info": "doctor", "status": "vm list"}
# Of a file or directory, which those tools take as an argument, and whose name here only its owner knows.
_REGISTERS = {"add", "create", "import", "register"}
_OF_VMS = {"container", "containers", "instance", "machine"}
_OF_GROUPS = {
    "config list": "config show",
    "config ls": "config show",
    "system df": "df",
    "system events": "events",
    "system info": "doctor",
}
_OF_LIBRARIES = {
    "get": "show",
    "info": "show",
    "remove": "delete",
    "untag": "delete",
}
_OF_SNAPSHOTS = {
    "fork": "vm fork",
    "get": "snapshot show",
    "info": "snapshot show",
    "remove": "snapshot delete",
    "restore": "vm restore",
    "revert": "vm restore",
}
_SENTENCES = {
    "network": "a network comes to be with the first VM in it (--network), and goes with the last",
    "volume": _COPIES,
}

_SHARE = re.compile(r"[^:]*:/(?!/).*")
_TAG, _DIGEST = r":[A-Za-z0-9_][\w.-]*", r"@sha256:[0-9a-f]{64}"
_HOST = r"(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+(?=[:/])|[a-z0-9.-]+(?=:))(?::[0-9]{1,5})?/"
_REPOSITORY = r"[a-z0-9][a-z0-9._/-]*"
_IMAGE = re.compile(
    rf"(?:docker://)?(?:{_REPOSITORY}(?:{_TAG}|(?:{_TAG})?{_DIGEST})|{_HOST}{_REPOSITORY}(?:{_TAG})?(?:{_DIGEST})?)",
    re.ASCII,
)
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
    word = words[0]
    if word in _SENTENCES and group in {"", "vm"}:
        return f": {_SENTENCES[word]}"
    if meant := replacement(group, words, of_vms):
        return f": it is `ingle {meant}`"
    close = get_close_matches(word, [name for name in here if name not in _NEVER_SUGGESTED], n=2)
    return f": did you mean {' or '.join(close)}?" if close else ""


def replacement(group: str, typed: Sequence[str], of_vms: Collection[str]) -> str:
    """What can be typed as it is, behind `ingle`, instead of `typed`; empty when nobody knows. What another tool takes
    with it and ours does not is left out."""
    word, *rest = typed
    words: Sequence[str] = []
    if word == "help":
        words = [*group.split(), *rest[:1], "--help"]
    elif f"{group} {word}" in _OF_GROUPS:
        words = [*_OF_GROUPS[f"{group} {word}"].split(), *rest]
    elif group == "" and word == "man":
        words = ["help", *(rest or ["--man"])]
    elif group == "" and word in of_vms:
        words = ["vm", word, *rest]
    elif word in _REGISTERS and group in {"", "vm", "image", "kernel"}:
        words = _registration("kernel" if group == "kernel" else "image", rest)
    elif group in {"image", "kernel"} and word in _OF_LIBRARIES:
        words = [group, _OF_LIBRARIES[word], *_without_force(rest)]
    elif group == "snapshot" and word in _OF_SNAPSHOTS:
        words = [*_OF_SNAPSHOTS[word].split(), *rest]
    elif group in {"", "vm"}:
        words = _for_snapshots(word, rest) or _for_vms(word, rest)
    return shlex.join(words)


def _for_snapshots(word: str, rest: Sequence[str]) -> Sequence[str]:
    """Of a VM, as its verbs or its things are elsewhere."""
    verb, *of_it = rest or [""]
    if word == "copy" and verb and not any(":" in part for part in rest):
        return ["vm", "fork", verb, *(part for name in of_it[:1] for part in ("--name", name))]
    if word not in {"checkpoint", "snapshot", "snapshots"}:
        return []
    if word == "snapshots" or verb in {"ls", "list"}:
        vm = of_it if verb in {"ls", "list"} else rest
        return ["snapshot", "list", *(part for name in vm[:1] for part in ("--filter", f"vm={name}"))]
    if verb in {"", "-h", "--help"}:
        return ["snapshot", *rest]
    return ["snapshot", "create", *(of_it if verb == "create" else rest)]


def _for_vms(word: str, rest: Sequence[str]) -> Sequence[str]:
    if word in {"rmi", "untag"}:
        return ["image", "delete", *_without_force(rest)]
    if word == "label" and rest:
        return ["vm", "update", rest[0], *(part for label in rest[1:] for part in ("--label", label))]
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
