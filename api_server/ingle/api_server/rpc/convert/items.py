"""Images and kernels."""

from collections.abc import Iterable, Mapping

from ingle.api_server.model.image_config import ImageConfig
from ingle.api_server.model.image_reference import Login, check_logins
from ingle.api_server.model.vm import Image, Kernel
from ingle.api_server.rpc.convert.healthchecks import healthcheck
from ingle.api_server.rpc.convert.times import timestamp
from ingle.v1 import image_pb2, kernel_pb2, registry_pb2


def image(value: Image, allocated_bytes: int) -> image_pb2.Image:
    """An image."""
    return image_pb2.Image(
        id=value.id,
        names=value.names,
        size_bytes=value.size_bytes,
        allocated_bytes=allocated_bytes,
        created_at=timestamp(value.created_at),
        source=value.source,
        owner=value.owner,
        owners=value.owners,
        config=None if value.config is None else _config(value.config),
    )


def logins(said: Iterable[registry_pb2.RegistryLogin]) -> Mapping[str, Login]:
    """By host. Raises InvalidArgument."""
    found = {each.host: Login(each.username, each.password, each.identity_token) for each in said}
    check_logins(found)
    return found


def _config(value: ImageConfig) -> image_pb2.ImageConfig:
    return image_pb2.ImageConfig(
        digest=value.digest,
        entrypoint=value.entrypoint,
        command=value.command,
        environment=value.environment,
        user=value.user,
        working_directory=value.directory,
        exposed_ports=value.exposed_ports,
        stop_signal=value.stop_signal,
        labels=value.labels,
        healthcheck=None if value.healthcheck is None else healthcheck(value.healthcheck),
    )


def kernel(value: Kernel) -> kernel_pb2.Kernel:
    """A kernel."""
    return kernel_pb2.Kernel(
        id=value.id,
        names=value.names,
        release=value.release,
        size_bytes=value.size_bytes,
        modules=len(value.modules),
        created_at=timestamp(value.created_at),
        source=value.source,
        owner=value.owner,
        owners=value.owners,
        disk_modules=value.disk_modules,
    )
