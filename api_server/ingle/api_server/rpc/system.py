"""SystemService."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import grpc

from ingle.api_server.model.caller import Caller
from ingle.api_server.model.check import Check, Status
from ingle.api_server.model.errors import Conflict, IngleError, Reason
from ingle.api_server.model.quota import NAMES
from ingle.api_server.model.spec import HostLimits
from ingle.api_server.operations.disk_usage import DiskUsage
from ingle.api_server.ports.engine import Engine
from ingle.api_server.ports.store.vms import VmStore
from ingle.api_server.rpc import convert, who
from ingle.api_server.settings import LiveSettings
from ingle.api_server.version import API_VERSION
from ingle.v1 import system_pb2, system_pb2_grpc
from ingle.version import VERSION

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"

_STATUSES: Mapping[Status, "system_pb2.CheckStatus.ValueType"] = {
    "pass": system_pb2.CHECK_STATUS_PASS,
    "warn": system_pb2.CHECK_STATUS_WARN,
    "fail": system_pb2.CHECK_STATUS_FAIL,
}


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What never changes while a server runs."""

    started_at: datetime
    state: Path
    runtime: Path
    cache: Path
    limits: HostLimits
    system: bool
    socket: Path


class SystemServicer(system_pb2_grpc.SystemServiceServicer):
    """The server itself."""

    def __init__(
        self,
        facts: ServerFacts,
        engines: Mapping[str, Engine],
        stop: Callable[[], None],
        examine: Callable[[Caller], Awaitable[Iterable[Check]]],
        settings: LiveSettings,
        vms: VmStore,
        disks: DiskUsage,
    ) -> None:
        self._vms = vms
        self._facts = facts
        self._engines = engines
        self._stop = stop
        self._examine = examine
        self._settings = settings
        self._disks = disks

    async def Ping(self, request: system_pb2.PingRequest, context: Context) -> system_pb2.PingResponse:
        return system_pb2.PingResponse(version=VERSION, api_version=API_VERSION)

    async def GetInfo(self, request: system_pb2.GetInfoRequest, context: Context) -> system_pb2.GetInfoResponse:
        facts = self._facts
        return system_pb2.GetInfoResponse(
            version=VERSION,
            api_version=API_VERSION,
            pid=os.getpid(),
            started_at=convert.timestamp(facts.started_at),
            state_directory=str(facts.state),
            runtime_directory=str(facts.runtime),
            cache_directory=str(facts.cache),
            host_vcpus=facts.limits.vcpus,
            host_memory_bytes=facts.limits.memory_bytes,
            system=facts.system,
            socket=str(facts.socket),
            engines=[await _engine_info(engine) for engine in self._engines.values()],
        )

    async def Examine(self, request: system_pb2.ExamineRequest, context: Context) -> system_pb2.ExamineResponse:
        return system_pb2.ExamineResponse(
            checks=[
                system_pb2.Check(
                    name=check.name, status=_STATUSES[check.status], detail=check.detail, remedy=check.remedy
                )
                for check in await self._examine(who.caller(context))
            ],
            settings=self._told(),
        )

    async def GetDiskUsage(
        self, request: system_pb2.GetDiskUsageRequest, context: Context
    ) -> system_pb2.GetDiskUsageResponse:
        usage = await self._disks.usage(who.caller(context), all_users=request.all_users)
        return convert.disk_usage(usage, each_vm=request.each_vm)

    async def GetSettings(
        self, request: system_pb2.GetSettingsRequest, context: Context
    ) -> system_pb2.GetSettingsResponse:
        return system_pb2.GetSettingsResponse(
            settings=self._told(), differences=self._settings.differences(request.environment)
        )

    def _told(self) -> list[system_pb2.Setting]:
        return [
            system_pb2.Setting(name=setting.name, value=setting.value, origin=setting.origin)
            for setting in self._settings.current()
        ]

    async def GetQuota(self, request: system_pb2.GetQuotaRequest, context: Context) -> system_pb2.GetQuotaResponse:
        caller = who.caller(context)
        owner = request.owner if request.HasField("owner") else caller.uid
        if owner != caller.uid:
            caller.check_all_users()
        quota, use = self._settings.quota(owner), await self._vms.use(owner)
        items = [system_pb2.QuotaItem(name=name, used=getattr(use, name), limit=getattr(quota, name)) for name in NAMES]
        return system_pb2.GetQuotaResponse(owner=owner, items=items)

    async def Shutdown(self, request: system_pb2.ShutdownRequest, context: Context) -> system_pb2.ShutdownResponse:
        if self._facts.system:
            raise Conflict(
                Reason.WRONG_STATE, "systemd runs this server for the whole machine", "sudo systemctl stop ingle"
            )
        self._stop()
        return system_pb2.ShutdownResponse()


async def _engine_info(engine: Engine) -> system_pb2.EngineInfo:
    told = system_pb2.EngineInfo(name=engine.info.name)
    try:
        told.version = await engine.version()
        if problem := await engine.problem():
            raise problem
    except IngleError as error:
        told.problem = f"{error.message}: {error.remedy}"
    return told
