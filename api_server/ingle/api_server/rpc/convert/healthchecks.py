"""How VMs are asked whether they are well, and what came of it."""

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from ingle.api_server.model.healthcheck import HealthStatus, VmHealth
from ingle.api_server.model.image_config import Healthcheck
from ingle.api_server.rpc.convert.times import duration, timestamp
from ingle.v1 import healthcheck_pb2

_STATUSES: Mapping[HealthStatus, healthcheck_pb2.HealthStatus.ValueType] = {
    status: healthcheck_pb2.HealthStatus.Value(f"HEALTH_STATUS_{status.name}") for status in HealthStatus
}


def healthcheck(value: Healthcheck) -> healthcheck_pb2.Healthcheck:
    """How it is asked."""
    return healthcheck_pb2.Healthcheck(
        test=value.test,
        interval=_duration(value.interval),
        timeout=_duration(value.timeout),
        start_period=_duration(value.start_period),
        retries=value.retries,
    )


def wished_healthcheck(message: healthcheck_pb2.Healthcheck) -> Healthcheck:
    """How it shall be. What is not set is 0, or empty."""
    return Healthcheck(
        test=tuple(message.test),
        interval=_milliseconds(message.interval),
        timeout=_milliseconds(message.timeout),
        start_period=_milliseconds(message.start_period),
        retries=message.retries,
    )


def vm_health(value: VmHealth) -> healthcheck_pb2.VmHealth:
    """What came of it."""
    message = healthcheck_pb2.VmHealth(status=_STATUSES[value.status], failures=value.failures)
    if value.last is not None:
        message.checked_at.CopyFrom(timestamp(value.last.at))
        message.exit_code = value.last.exit_code
        message.output = value.last.output
    return message


def _duration(milliseconds: int) -> Duration | None:
    return duration(milliseconds / 1000) if milliseconds else None


def _milliseconds(value: Duration) -> int:
    """A begun one is one: what is too little is told so."""
    return value.seconds * 1000 - -value.nanos // 10**6
