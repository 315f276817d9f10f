"""Agent messages and the domain: what a guest says is checked here before anybody believes it."""

import asyncio
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from ingle.agent.v1 import agent_pb2
from ingle.api_server.model.errors import GuestError, Reason
from ingle.api_server.model.guest import (
    AgentInfo,
    ExecSpec,
    Exited,
    GuestActivity,
    GuestStats,
    InterfaceStats,
    Started,
)
from ingle.api_server.model.limits import ResourceLimit

M = TypeVar("M", bound=Message)
T = TypeVar("T")

PROTOCOL_VERSION = 1

_LONGEST_TEXT = 500
_LONGEST_AGE = 100 * 365 * 24 * 3600 * 1000  # milliseconds, of a machine and all that is in it
_MOST_CPUS = 1 << 16
_CONVERTED_A_TURN = 50
_MOST_INTERFACES = 256
_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # a UUID, see random(4)

_REASONS = {
    agent_pb2.ERROR_CODE_BAD_REQUEST: Reason.INVALID_ARGUMENT,
    agent_pb2.ERROR_CODE_BAD_VERSION: Reason.GUEST_PROTOCOL,
    agent_pb2.ERROR_CODE_BAD_TOKEN: Reason.GUEST_PROTOCOL,
    agent_pb2.ERROR_CODE_INTERNAL: Reason.TOOL_FAILED,
    agent_pb2.ERROR_CODE_COMMAND_NOT_FOUND: Reason.COMMAND_NOT_FOUND,
    agent_pb2.ERROR_CODE_COMMAND_NOT_EXECUTABLE: Reason.COMMAND_NOT_EXECUTABLE,
    agent_pb2.ERROR_CODE_USER_NOT_FOUND: Reason.GUEST_USER_NOT_FOUND,
    agent_pb2.ERROR_CODE_DIRECTORY_NOT_FOUND: Reason.GUEST_DIRECTORY_NOT_FOUND,
    agent_pb2.ERROR_CODE_GROUP_NOT_FOUND: Reason.GUEST_GROUP_NOT_FOUND,
    agent_pb2.ERROR_CODE_LIMIT_REFUSED: Reason.RESOURCE_LIMIT_REFUSED,
    agent_pb2.ERROR_CODE_SESSION_NOT_FOUND: Reason.SESSION_NOT_FOUND,
    agent_pb2.ERROR_CODE_SESSION_ATTACHED: Reason.SESSION_ATTACHED,
    agent_pb2.ERROR_CODE_SESSION_EXISTS: Reason.NAME_TAKEN,
    agent_pb2.ERROR_CODE_FILE_NOT_FOUND: Reason.FILE_NOT_FOUND,
    agent_pb2.ERROR_CODE_FILE_EXISTS: Reason.FILE_EXISTS,
    agent_pb2.ERROR_CODE_IS_A_DIRECTORY: Reason.IS_A_DIRECTORY,
    agent_pb2.ERROR_CODE_NOT_A_DIRECTORY: Reason.NOT_A_DIRECTORY,
    agent_pb2.ERROR_CODE_DIRECTORY_NOT_EMPTY: Reason.DIRECTORY_NOT_EMPTY,
    agent_pb2.ERROR_CODE_FILE_PERMISSION_DENIED: Reason.FILE_PERMISSION_DENIED,
    agent_pb2.ERROR_CODE_NO_SPACE: Reason.GUEST_DISK_FULL,
    agent_pb2.ERROR_CODE_READ_ONLY_FILE_SYSTEM: Reason.READ_ONLY_FILE_SYSTEM,
    agent_pb2.ERROR_CODE_SYMLINK_REFUSED: Reason.SYMLINK_REFUSED,
    agent_pb2.ERROR_CODE_FILE_NAME_TOO_LONG: Reason.FILE_NAME_TOO_LONG,
    agent_pb2.ERROR_CODE_NOT_A_REGULAR_FILE: Reason.NOT_A_REGULAR_FILE,
    agent_pb2.ERROR_CODE_FILE_BUSY: Reason.FILE_BUSY,
    agent_pb2.ERROR_CODE_CROSS_DEVICE: Reason.CROSS_DEVICE,
    agent_pb2.ERROR_CODE_ARCHIVE_INVALID: Reason.ARCHIVE_INVALID,
    agent_pb2.ERROR_CODE_FILE_TOO_LARGE: Reason.FILE_TOO_LARGE,
    agent_pb2.ERROR_CODE_FILE_IO_FAILED: Reason.FILE_IO_FAILED,
    agent_pb2.ERROR_CODE_FILE_NOT_SUPPORTED: Reason.FILE_NOT_SUPPORTED,
    agent_pb2.ERROR_CODE_OUT_OF_RESOURCES: Reason.GUEST_OUT_OF_RESOURCES,
    agent_pb2.ERROR_CODE_INTERFACE_NOT_FOUND: Reason.GUEST_INTERFACE_NOT_FOUND,
    agent_pb2.ERROR_CODE_NOT_A_GUEST: Reason.NOT_A_GUEST,
    agent_pb2.ERROR_CODE_CONNECTION_REFUSED: Reason.CONNECTION_REFUSED,
    agent_pb2.ERROR_CODE_CONNECTION_TIMED_OUT: Reason.CONNECTION_TIMED_OUT,
    agent_pb2.ERROR_CODE_CONNECTION_RESET: Reason.CONNECTION_RESET,
    agent_pb2.ERROR_CODE_HOST_UNREACHABLE: Reason.HOST_UNREACHABLE,
    agent_pb2.ERROR_CODE_SOCKET_NOT_FOUND: Reason.SOCKET_NOT_FOUND,
    agent_pb2.ERROR_CODE_CONNECTION_NOT_PERMITTED: Reason.CONNECTION_NOT_PERMITTED,
    agent_pb2.ERROR_CODE_INIT_NOT_FOUND: Reason.INIT_NOT_FOUND,
    agent_pb2.ERROR_CODE_IDENTITY_PENDING: Reason.IDENTITY_PENDING,
    agent_pb2.ERROR_CODE_RESTING: Reason.GUEST_RESTING,
    agent_pb2.ERROR_CODE_RESTLESS: Reason.GUEST_RESTLESS,
}
# In braces what the caller knows: see rpc/remedies.py.
_REMEDIES = {
    agent_pb2.ERROR_CODE_BAD_VERSION: "ingle vm restart {vm}: it gets this server's agent",
    agent_pb2.ERROR_CODE_BAD_TOKEN: "ingle vm restart {vm}: it gets a new token",
    agent_pb2.ERROR_CODE_USER_NOT_FOUND: "add the user in the guest, or give a number, which needs no entry",
    agent_pb2.ERROR_CODE_GROUP_NOT_FOUND: "add the group in the guest, or give a number, which needs no entry",
    agent_pb2.ERROR_CODE_LIMIT_REFUSED: "ask for less; there is: ingle vm exec {vm} -- cat /proc/self/limits",
    agent_pb2.ERROR_CODE_INIT_NOT_FOUND: "leave out --init image: the agent is PID 1 then",
    agent_pb2.ERROR_CODE_IDENTITY_PENDING: "ingle vm restart {vm}: it boots as itself",
    agent_pb2.ERROR_CODE_RESTING: "try again in a moment: it is about to be put to sleep, or to wake",
    agent_pb2.ERROR_CODE_RESTLESS: "ingle vm exec {vm} -- ps -eo pid,stat,wchan,args: end what has a D in STAT",
    agent_pb2.ERROR_CODE_SESSION_NOT_FOUND: "ingle vm session list {vm}",
    agent_pb2.ERROR_CODE_SESSION_ATTACHED: "add --steal to take it over",
    agent_pb2.ERROR_CODE_FILE_NOT_FOUND: "{find_or_make}",
    agent_pb2.ERROR_CODE_FILE_EXISTS: "to replace it add --force (mv), to take it as it is --parents (mkdir)",
    agent_pb2.ERROR_CODE_IS_A_DIRECTORY: "ingle vm file ls {vm} {path}; ingle vm cp {vm}:{path} . copies all of it",
    agent_pb2.ERROR_CODE_NOT_A_DIRECTORY: "ingle vm file stat {vm} {path} tells what it is",
    agent_pb2.ERROR_CODE_DIRECTORY_NOT_EMPTY: "to remove it with all that is in it add --recursive",
    agent_pb2.ERROR_CODE_FILE_PERMISSION_DENIED: "add --user with one who may; without it is root",
    agent_pb2.ERROR_CODE_NO_SPACE: "ingle vm stats {vm}; ingle vm update --help tells how its disk grows",
    agent_pb2.ERROR_CODE_READ_ONLY_FILE_SYSTEM: "ingle vm exec {vm} -- cat /proc/mounts",
    agent_pb2.ERROR_CODE_SYMLINK_REFUSED: "give the path that the link leads to: ingle vm file stat {vm} {path}",
    agent_pb2.ERROR_CODE_FILE_NAME_TOO_LONG: "use at most 255 bytes a name, 4095 a path",
    agent_pb2.ERROR_CODE_NOT_A_REGULAR_FILE: "ingle vm file stat {vm} {path}; for pipes and devices: ingle vm exec",
    agent_pb2.ERROR_CODE_FILE_BUSY: "try again once nothing in the guest uses it",
    agent_pb2.ERROR_CODE_CROSS_DEVICE: "ingle vm exec {vm} -- mv {path} {new_path}",
    agent_pb2.ERROR_CODE_ARCHIVE_INVALID: "send a tar archive without absolute names and .. in them",
    agent_pb2.ERROR_CODE_FILE_IO_FAILED: "ingle vm logs {vm}",
    agent_pb2.ERROR_CODE_FILE_NOT_SUPPORTED: "use another file system: ingle vm exec {vm} -- cat /proc/mounts",
    agent_pb2.ERROR_CODE_OUT_OF_RESOURCES: "ingle vm stats {vm}; give it more memory, or ask for less at once",
    agent_pb2.ERROR_CODE_CONNECTION_REFUSED: "ingle vm ports {vm} shows who listens on what",
}


def exec_request(spec: ExecSpec) -> agent_pb2.Request:
    """A command as the agent wants it. Part of a millisecond of timeout counts as a whole one: 0 would mean none."""
    timeout = 0 if spec.timeout_seconds is None else max(1, math.ceil(spec.timeout_seconds * 1000))
    return agent_pb2.Request(
        exec=agent_pb2.ExecRequest(
            argv=spec.argv,
            env=spec.env,
            working_directory=spec.working_directory,
            user=spec.user,
            stdin=spec.stdin,
            timeout_milliseconds=timeout,
            detach=spec.detach,
            umask=spec.umask,
            limits=resource_limits(spec.limits),
            wait_output=spec.wait_output,
            output_to_console=spec.output_to_console,
            unnoticed=spec.unnoticed,
            stop_signal=spec.stop_signal,
        )
    )


def resource_limits(limits: Iterable[ResourceLimit]) -> list[agent_pb2.ResourceLimit]:
    """Limits as the agent wants them."""
    return [agent_pb2.ResourceLimit(resource=limit.resource, soft=limit.soft, hard=limit.hard) for limit in limits]


def parse(kind: type[M], payload: bytes) -> M:
    """A message from a payload. Raises GuestError(GUEST_PROTOCOL)."""
    message = kind()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise nonsense(f"{kind.__name__}: {error}") from error
    return message


def failure(payload: bytes) -> GuestError:
    """The error that an ERROR frame tells of."""
    error = parse(agent_pb2.Error, payload)
    reason = _REASONS.get(error.code, Reason.GUEST_PROTOCOL)
    return GuestError(
        reason, printable(error.message) or "the guest's agent gives no reason", _REMEDIES.get(error.code, "")
    )


def agent_info(hello: agent_pb2.HelloOk, ping: agent_pb2.PingResponse) -> AgentInfo:
    """The answer to a ping. Raises GuestError(GUEST_PROTOCOL)."""
    if not _BOOT_ID.fullmatch(ping.boot_id):
        raise nonsense(f"boot id {printable(ping.boot_id)!r}")
    return AgentInfo(printable(hello.agent_version), ping.boot_id, age(ping.uptime_milliseconds, "an uptime"))


def started(payload: bytes) -> Started:
    """The first answer of an exec."""
    return Started(parse(agent_pb2.ExecStarted, payload).pid)


def exited(payload: bytes) -> Exited:
    """The last answer of an exec. Raises GuestError(GUEST_PROTOCOL)."""
    message = parse(agent_pb2.ExecExited, payload)
    if message.exit_code > 255 or message.signal > 64:
        raise nonsense(f"exit code {message.exit_code}, signal {message.signal}")
    cpu_seconds = age(message.cpu_milliseconds, "processor time")
    return Exited(message.exit_code, message.signal, message.timed_out, message.output_cut, cpu_seconds)


def stats(message: agent_pb2.StatsResponse) -> GuestStats:
    """Numbers, whatever they are. Raises GuestError(GUEST_PROTOCOL) for those that are none."""
    load = (message.load_1m, message.load_5m, message.load_15m)
    if not all(math.isfinite(value) and value >= 0 for value in load):
        raise nonsense(f"load {load}")
    busy, idle = message.cpu_total_nanoseconds, message.cpu_idle_nanoseconds
    if message.cpus > _MOST_CPUS or max(busy, idle) > _LONGEST_AGE * 10**6 * max(1, message.cpus):
        raise nonsense(f"{message.cpus} processors, {busy} and {idle} ns of their time")
    if len(message.interfaces) > _MOST_INTERFACES:
        raise nonsense(f"{len(message.interfaces)} network interfaces; at most {_MOST_INTERFACES} are allowed")
    return GuestStats(
        uptime_seconds=age(message.uptime_milliseconds, "an uptime"),
        load=load,
        memory_total_bytes=message.memory_total_bytes,
        memory_available_bytes=message.memory_available_bytes,
        disk_total_bytes=message.disk_total_bytes,
        disk_available_bytes=message.disk_available_bytes,
        processes=message.processes,
        cpu_total_seconds=message.cpu_total_nanoseconds / 1e9,
        cpu_idle_seconds=message.cpu_idle_nanoseconds / 1e9,
        cpus=message.cpus,
        interfaces=tuple(map(_interface, message.interfaces)),
    )


def _interface(message: agent_pb2.InterfaceStats) -> InterfaceStats:
    return InterfaceStats(
        name=printable(message.name),
        received_bytes=message.received_bytes,
        received_packets=message.received_packets,
        receive_errors=message.receive_errors,
        sent_bytes=message.sent_bytes,
        sent_packets=message.sent_packets,
        send_errors=message.send_errors,
    )


def activity(message: agent_pb2.ActivityResponse) -> GuestActivity:
    """What clients do. Raises GuestError(GUEST_PROTOCOL)."""
    return GuestActivity(
        idle_seconds=age(message.idle_milliseconds, "idleness"),
        execs=message.execs,
        sessions=message.sessions,
        attached_sessions=message.attached_sessions,
        forwards=message.forwards,
        connections=message.connections,
    )


def age(milliseconds: int, what: str) -> float:
    """Seconds that something lasts already. Raises GuestError(GUEST_PROTOCOL) for more than a century."""
    if milliseconds > _LONGEST_AGE:
        raise nonsense(f"{what} of {milliseconds} ms")
    return milliseconds / 1000


async def in_turns(convert: Callable[[M], T], messages: Iterable[M]) -> list[T]:
    """All of them converted; the event loop turns to others in between. What `convert` raises."""
    converted: list[T] = []
    for message in messages:
        converted.append(convert(message))
        if len(converted) % _CONVERTED_A_TURN == 0:
            await asyncio.sleep(0)
    return converted


def nonsense(what: str) -> GuestError:
    """The error for an answer that makes no sense."""
    return GuestError(Reason.GUEST_PROTOCOL, f"the guest's agent answered nonsense: {what}")


def printable(text: str) -> str:
    """A guest's text as it may be shown on somebody's terminal: one short line without control characters."""
    kept = text[: _LONGEST_TEXT + 1]
    if not kept.isprintable():  # which is ten times as fast as looking at each character
        kept = "".join(" " if unicodedata.category(char).startswith("C") else char for char in kept)
    return kept if len(kept) <= _LONGEST_TEXT else kept[: _LONGEST_TEXT - 1] + "…"
