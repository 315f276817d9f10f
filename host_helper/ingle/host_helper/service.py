"""The verbs on the wire: who calls is checked, the request is validated, the call is audited. Thin otherwise."""

import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from ingle.helper.v1 import helper_pb2 as pb
from ingle.helper.v1 import helper_pb2_grpc
from ingle.host_helper.core import Core
from ingle.host_helper.errors import OP_ID_KEY, HelperError, abort
from ingle.host_helper.gate import Peer
from ingle.host_helper.requests import Validator
from ingle.v1.error_pb2 import ErrorReason
from ingle.version import VERSION

log = logging.getLogger("ingle.helper.audit")

_OP_ID = re.compile(r"op-[0-9a-f]{12}", re.ASCII)

Response = TypeVar("Response")
Identify = Callable[[grpc.ServicerContext], Peer | None]


class HelperService(helper_pb2_grpc.HelperServiceServicer):
    """Implements ingle.helper.v1.HelperService. `identify` tells who calls: None for a call past the gate."""

    def __init__(
        self, core: Core, validator: Validator, part: "pb.Part.ValueType", allowed: frozenset[int], identify: Identify
    ) -> None:
        self._core = core
        self._validator = validator
        self._part = part
        self._allowed = allowed
        self._identify = identify

    def Ping(self, request: pb.PingRequest, context: grpc.ServicerContext) -> pb.PingResponse:
        return self._call(context, "Ping", lambda _: pb.PingResponse(version=VERSION, part=self._part))

    def EnsureNetwork(
        self, request: pb.EnsureNetworkRequest, context: grpc.ServicerContext
    ) -> pb.EnsureNetworkResponse:
        done = self._change(context, "EnsureNetwork", ensure_network=request)
        return pb.EnsureNetworkResponse(network=done.networks[0])

    def DeleteNetwork(
        self, request: pb.DeleteNetworkRequest, context: grpc.ServicerContext
    ) -> pb.DeleteNetworkResponse:
        self._change(context, "DeleteNetwork", delete_network=request)
        return pb.DeleteNetworkResponse()

    def CreateTap(self, request: pb.CreateTapRequest, context: grpc.ServicerContext) -> pb.CreateTapResponse:
        done = self._change(context, "CreateTap", create_tap=request)
        return pb.CreateTapResponse(tap=done.taps[0])

    def DeleteTap(self, request: pb.DeleteTapRequest, context: grpc.ServicerContext) -> pb.DeleteTapResponse:
        self._change(context, "DeleteTap", delete_tap=request)
        return pb.DeleteTapResponse()

    def SetNat(self, request: pb.SetNatRequest, context: grpc.ServicerContext) -> pb.SetNatResponse:
        self._change(context, "SetNat", set_nat=request)
        return pb.SetNatResponse()

    def LimitTap(self, request: pb.LimitTapRequest, context: grpc.ServicerContext) -> pb.LimitTapResponse:
        self._change(context, "LimitTap", limit_tap=request)
        return pb.LimitTapResponse()

    def PublishPort(self, request: pb.PublishPortRequest, context: grpc.ServicerContext) -> pb.PublishPortResponse:
        self._change(context, "PublishPort", publish_port=request)
        return pb.PublishPortResponse()

    def UnpublishPort(
        self, request: pb.UnpublishPortRequest, context: grpc.ServicerContext
    ) -> pb.UnpublishPortResponse:
        self._change(context, "UnpublishPort", unpublish_port=request)
        return pb.UnpublishPortResponse()

    def ChownVmFile(self, request: pb.ChownVmFileRequest, context: grpc.ServicerContext) -> pb.ChownVmFileResponse:
        self._change(context, "ChownVmFile", chown_vm_file=request)
        return pb.ChownVmFileResponse()

    def CreateSnapshotDevice(
        self, request: pb.CreateSnapshotDeviceRequest, context: grpc.ServicerContext
    ) -> pb.CreateSnapshotDeviceResponse:
        done = self._change(context, "CreateSnapshotDevice", create_snapshot_device=request)
        return pb.CreateSnapshotDeviceResponse(device=done.devices[0])

    def RemoveSnapshotDevice(
        self, request: pb.RemoveSnapshotDeviceRequest, context: grpc.ServicerContext
    ) -> pb.RemoveSnapshotDeviceResponse:
        self._change(context, "RemoveSnapshotDevice", remove_snapshot_device=request)
        return pb.RemoveSnapshotDeviceResponse()

    def ResizeSnapshotDevice(
        self, request: pb.ResizeSnapshotDeviceRequest, context: grpc.ServicerContext
    ) -> pb.ResizeSnapshotDeviceResponse:
        done = self._change(context, "ResizeSnapshotDevice", resize_snapshot_device=request)
        return pb.ResizeSnapshotDeviceResponse(device=done.devices[0])

    def Apply(self, request: pb.ApplyRequest, context: grpc.ServicerContext) -> pb.ApplyResponse:
        return self._apply(context, "Apply", request)

    def Examine(self, request: pb.ExamineRequest, context: grpc.ServicerContext) -> pb.ExamineResponse:
        return self._call(context, "Examine", lambda _: self._core.examine())

    def FindOverlaps(self, request: pb.FindOverlapsRequest, context: grpc.ServicerContext) -> pb.FindOverlapsResponse:
        return self._call(
            context, "FindOverlaps", lambda _: pb.FindOverlapsResponse(overlaps=self._core.find_overlaps())
        )

    def List(self, request: pb.ListRequest, context: grpc.ServicerContext) -> pb.ListResponse:
        return self._call(context, "List", lambda _: self._core.list())

    def Reconcile(self, request: pb.ReconcileRequest, context: grpc.ServicerContext) -> pb.ReconcileResponse:
        def reconcile(audit: dict[str, object]) -> pb.ReconcileResponse:
            wanted = self._validator.wanted(request)
            audit["wanted"] = len(wanted)
            added, removed = self._core.reconcile(wanted)
            audit["added"], audit["removed"] = list(map(str, added)), list(map(str, removed))
            return pb.ReconcileResponse(added=map(str, added), removed=map(str, removed))

        return self._call(context, "Reconcile", reconcile)

    def _change(self, context: grpc.ServicerContext, verb: str, **change: Any) -> pb.ApplyResponse:
        return self._apply(context, verb, pb.ApplyRequest(changes=[pb.Change(**change)]))

    def _apply(self, context: grpc.ServicerContext, verb: str, request: pb.ApplyRequest) -> pb.ApplyResponse:
        def apply(audit: dict[str, object]) -> pb.ApplyResponse:
            verbs = self._validator.verbs(request)
            audit["changes"] = list(map(str, verbs))
            return self._core.apply(verbs)

        return self._call(context, verb, apply)

    def _call(
        self, context: grpc.ServicerContext, verb: str, body: Callable[[dict[str, object]], Response]
    ) -> Response:
        """Run `body` for a caller who may; audit it, whatever comes of it."""
        began = time.perf_counter()
        op_id = op_id_of(context)
        audit: dict[str, object] = {"verb": verb, "op_id": op_id}
        try:
            peer = self._identify(context)
            if peer is None or peer.uid not in self._allowed:
                raise HelperError(ErrorReason.ERROR_REASON_PEER_REFUSED, "only the API server's user may call")
            audit |= {"uid": peer.uid, "pid": peer.pid}
            response = body(audit)
        except HelperError as error:
            self._audit(audit, began, error.reason, error.message)
            abort(context, op_id, error)
        except Exception as error:
            log.exception("failed unexpectedly", extra=audit)
            message = f"internal error: {type(error).__name__}: {error}"
            self._audit(audit, began, "INTERNAL", message)
            abort(context, op_id, HelperError(ErrorReason.ERROR_REASON_INTERNAL, message, "the helper's log has more"))
        self._audit(audit, began, "ok", "")
        context.set_trailing_metadata(((OP_ID_KEY, op_id),))
        return response

    @staticmethod
    def _audit(audit: dict[str, object], began: float, result: str, why: str) -> None:
        milliseconds = round((time.perf_counter() - began) * 1000, 1)
        log.info("call", extra={**audit, "result": result, "ms": milliseconds, **({"why": why} if why else {})})


def op_id_of(context: grpc.ServicerContext) -> str:
    """The caller's, or one of our own when it has none, or something else in its place."""
    for key, value in context.invocation_metadata() or ():
        if key == OP_ID_KEY and isinstance(value, str) and _OP_ID.fullmatch(value):
            return value
    return f"op-{os.urandom(6).hex()}"


class UnknownMethods(grpc.GenericRpcHandler):
    """Stands in for every method that there isn't, so that these calls too get an error of our kind."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method = handler_call_details.method

        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            unknown = HelperError(ErrorReason.ERROR_REASON_UNKNOWN_METHOD, f"this helper has no method {method}")
            abort(context, op_id_of(context), unknown)

        return grpc.unary_unary_rpc_method_handler(refuse)
