"""Images from registries and from archives: the program that brings them, which is believed no more than what it reads.

`image_puller/internal/wire` has what it is asked and what it says.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ingle.api_server.host.child import limited
from ingle.api_server.host.tool import Tools
from ingle.api_server.model.errors import (
    BadFile,
    HostProblem,
    IngleError,
    InvalidArgument,
    NotFound,
    Reason,
    ToolFailed,
)
from ingle.api_server.model.image_config import Healthcheck, ImageConfig
from ingle.api_server.model.image_reference import Login
from ingle.api_server.ports.sources import Exported, Report
from ingle.api_server.programs import go_architecture, image_puller

MOST_BYTES = 256 << 30
MOST_FILES = 1_000_000
STALL_SECONDS = 60

# Of its heap, so that with all else it stays below 100 MB whatever it brings.
_ENVIRONMENT = {"GOMEMLIMIT": "64MiB", "GOMAXPROCS": "2"}
_STATES = frozenset({"cached", "fetching", "unpacking", "ready"})
_DONE = frozenset({"cached", "ready"})


@dataclass(frozen=True, slots=True)
class Brought:
    """What came of it beside the archive: `config`, and a UUID that this very image has wherever it is brought. `name`:
    what an archive calls it."""

    config: ImageConfig
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class Registries:
    """`layers`: the directory of the cache. `mirrors`: by host, those that are asked before it."""

    tools: Tools
    layers: Path
    mirrors: Mapping[str, Sequence[str]]

    async def bring(self, reference: str, logins: Mapping[str, Login], archive: Path, report: Report) -> Brought:
        """Write the new file `archive`, the tar archive of an image's root file system.

        Raises NotFound, InvalidArgument, BadFile(IMAGE_INVALID), HostProblem, ToolFailed."""
        wish = {
            "reference": reference,
            "logins": {host: asdict(login) for host, login in logins.items()},
            "mirrors": {host: list(mirrors) for host, mirrors in self.mirrors.items()},
        }
        return await self._bring(wish, _Heard(f"the image {reference}", _of_registry(reference), report), archive)

    async def unpack(self, sent: Path, called: str, archive: Path, report: Report) -> Brought:
        """The same with the image that the archive `sent`, a plain tar, calls so; empty: its only one."""
        return await self._bring(
            {"sent": str(sent), "reference": called}, _Heard("the archive", _OF_ARCHIVE, report), archive
        )

    async def export(self, image: Path, about: Exported, archive: Path) -> None:
        """As ports.sources.ImageSource."""
        order = {
            "image": str(image),
            "archive": str(archive),
            "name": about.name,
            "architecture": go_architecture(),
            "created_seconds": int(about.created_at.timestamp()),
            "config": {} if about.config is None else _said(about.config),
            "most_bytes": MOST_BYTES,
            "most_files": MOST_FILES,
        }
        await self._run(order, _Heard("the image", _OF_EXPORT, _nobody), "export")

    async def _bring(self, wish: Mapping[str, object], heard: "_Heard", archive: Path) -> Brought:
        order = {
            **wish,
            "architecture": go_architecture(),
            "cache": str(self.layers),
            "archive": str(archive),
            "most_bytes": MOST_BYTES,
            "most_files": MOST_FILES,
            "stall_seconds": STALL_SECONDS,
        }
        await self._run(order, heard)
        if heard.brought is None:
            raise ToolFailed(Reason.TOOL_FAILED, "the image puller ended without saying what it has brought")
        return heard.brought

    async def _run(self, order: Mapping[str, object], heard: "_Heard", *arguments: str) -> None:
        try:
            await self.tools.run(
                [*limited(str(image_puller())), *arguments],
                env=_ENVIRONMENT,
                stdin=json.dumps(order).encode(),
                on_output=heard.line,
            )
        except ToolFailed:
            if heard.problem is None:
                raise
            raise heard.problem from None


class _Heard:
    """Makes sense of the lines that it says, about `what`."""

    def __init__(self, what: str, remedies: "_Remedies", report: Report) -> None:
        self.brought: Brought | None = None
        self.problem: IngleError | None = None
        self._what = what
        self._remedies = remedies
        self._report = report
        self._layers: dict[int, tuple[str, int, int]] = {}

    def line(self, line: str) -> None:
        """One of them."""
        said = json.loads(line)
        if "layer" in said:
            self._layer(said["layer"])
        elif "note" in said:
            self._report(str(said["note"]), None)
        elif "problem" in said:
            self.problem = _problem(said["problem"], self._what, self._remedies)
        elif "image" in said:
            self.brought = _brought(said["image"])

    def _layer(self, layer: Mapping[str, Any]) -> None:
        number, count, state = layer["number"], layer["count"], layer["state"]
        assert state in _STATES
        self._layers[number] = (state, layer["bytes"], layer["size"])
        here = sum(each in _DONE for each, _, _ in self._layers.values())
        come = sum(come for _, come, _ in self._layers.values())
        size = sum(size for _, _, size in self._layers.values())
        # Those that nobody has heard of yet are as large as the others, for all that is known.
        share = come / size * len(self._layers) / count if size else None
        self._report(f"layer {number} of {count} is {state}, {here} are here", share)


def _brought(image: Mapping[str, Any]) -> Brought:
    said = image["config"]
    health = said.get("healthcheck")
    config = ImageConfig(
        digest=image["digest"],
        entrypoint=_texts(said["entrypoint"]),
        command=_texts(said["command"]),
        environment=_texts(said["environment"]),
        user=said["user"],
        directory=said["directory"],
        exposed_ports=_texts(said["exposed_ports"]),
        stop_signal=said["stop_signal"],
        labels=MappingProxyType(said["labels"] or {}),
        healthcheck=None if health is None else _healthcheck(health),
    )
    if any("\0" in text for text in _all_texts(config)):
        raise BadFile(Reason.IMAGE_INVALID, "the image's configuration can't be used: it holds a NUL byte")
    return Brought(config, str(uuid.uuid5(uuid.NAMESPACE_OID, image["config_digest"])), image["name"])


def _healthcheck(said: Mapping[str, Any]) -> Healthcheck:
    return Healthcheck(
        test=_texts(said["test"]),
        interval=said["interval_milliseconds"],
        timeout=said["timeout_milliseconds"],
        start_period=said["start_period_milliseconds"],
        retries=said["retries"],
    )


def _all_texts(config: ImageConfig) -> Iterator[str]:
    """What a guest, its commands or its kernel may be given of it."""
    yield from (config.user, config.directory, config.stop_signal)
    yield from (*config.entrypoint, *config.command, *config.environment)
    yield from () if config.healthcheck is None else config.healthcheck.test


def _said(config: ImageConfig) -> Mapping[str, object]:
    """The same the other way round."""
    health = config.healthcheck
    return {
        "entrypoint": config.entrypoint,
        "command": config.command,
        "environment": config.environment,
        "user": config.user,
        "directory": config.directory,
        "exposed_ports": config.exposed_ports,
        "stop_signal": config.stop_signal,
        "labels": dict(config.labels),
        "healthcheck": health
        and {
            "test": health.test,
            "interval_milliseconds": health.interval,
            "timeout_milliseconds": health.timeout,
            "start_period_milliseconds": health.start_period,
            "retries": health.retries,
        },
    }


def _nobody(text: str, fraction: float | None) -> None:
    """Is told."""


def _texts(said: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(said or ())


@dataclass(frozen=True, slots=True)
class _Remedies:
    """What to type instead of what was."""

    bad_reference: str
    not_found: str
    login: str


def _of_registry(reference: str) -> _Remedies:
    return _Remedies(
        "ingle image pull HOST/REPOSITORY:TAG",
        "ingle image catalog has ingle's own images",
        reference.partition("/")[0],
    )


_WHICH = "ingle image pull oci-archive:FILE:NAME"
_OF_ARCHIVE = _Remedies(_WHICH, _WHICH, "")
_OF_EXPORT = _Remedies("", "", "")


def _problem(said: Mapping[str, str], what: str, remedies: _Remedies) -> IngleError:
    message, host = said["message"], remedies.login
    known: Mapping[str, Callable[[], IngleError]] = {
        "bad-reference": lambda: InvalidArgument(message, remedies.bad_reference, field="name"),
        "not-found": lambda: NotFound(Reason.IMAGE_NOT_FOUND, message, remedies.not_found),
        "denied": lambda: HostProblem(
            Reason.REGISTRY_DENIED, message, f"docker login {host}, or podman login {host}, if there is such an image"
        ),
        "unreachable": lambda: HostProblem(Reason.REGISTRY_UNREACHABLE, message, "try again: what has come is kept"),
        "busy": lambda: HostProblem(Reason.REGISTRY_UNREACHABLE, message, f"try later, or docker login {host}"),
        "invalid": lambda: BadFile(Reason.IMAGE_INVALID, f"{what} can't be used: {message}"),
        "disk-full": lambda: HostProblem(Reason.DISK_FULL, message, "df -h"),
    }
    make = known.get(said["reason"])
    return make() if make else ToolFailed(Reason.TOOL_FAILED, f"the image puller: {message}")
