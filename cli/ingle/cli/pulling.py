"""Images that are not here yet: who their registry takes the caller for, and how they get here."""

import os

from ingle.cli.client import Client
from ingle.cli.errors import CliError
from ingle.cli.progress import follow
from ingle.cli.stages import Stages
from ingle.cli.workload import runs_by_itself
from ingle.v1 import image_pb2, registry_pb2


def here(client: Client, name: str) -> image_pb2.Image | None:
    """The image of that name, or id, if it is here."""
    try:
        return client.call(image_pb2.GetImageRequest(image=name), image_pb2.GetImageResponse).image
    except CliError as error:
        if error.failures[0].reason == "IMAGE_NOT_FOUND":
            return None
        raise


def has_program(client: Client, name: str, stages: Stages) -> bool:
    """Whether an image says what is to be run in it; to know it, one that a registry has is brought here. Raises the
    same as `pulled`. Those of the catalog, such as the default, say nothing."""
    if not name:
        return False
    image = here(client, name)
    if image is None and not _in_catalog(client, name):
        image = pulled(client, name, stages)
    return image is not None and runs_by_itself(image.config)


def _in_catalog(client: Client, name: str) -> bool:
    entries = client.all(image_pb2.ListCatalogImagesRequest(), image_pb2.ListCatalogImagesResponse).images
    return name in [entry.name for entry in entries]


def logins_for(client: Client, name: str) -> list[registry_pb2.RegistryLogin]:
    """Of the caller, at the registry that is to have the image: one at most, none for a name of the catalog. Raises
    CliError."""
    if _in_catalog(client, name):
        return []
    from ingle.cli import registry_logins  # noqa: PLC0415 - subprocess is slow

    login = registry_logins.login_at(registry_logins.host_of(name), os.environ)
    return [] if login is None else [login]


def pulled(client: Client, name: str, stages: Stages, *, refresh: bool = False) -> image_pb2.Image:
    """Bring it here, if it is not. Raises CliError, and Interrupted as `follow` does."""
    request = image_pb2.BeginPullImageRequest(name=name, refresh=refresh, logins=logins_for(client, name))
    follow(client, client.call(request, image_pb2.BeginPullImageResponse).operation_id, stages)
    return client.call(image_pb2.PullImageRequest(name=name), image_pb2.PullImageResponse).image  # it is here
