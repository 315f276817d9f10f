"""Memories of guests that have booted, with which VMs begin: listed and deleted by `ingle image`."""

from collections.abc import Mapping, Sequence
from datetime import UTC

from ingle.cli.client import Client
from ingle.cli.jsonable import enum_name
from ingle.cli.listing import Column, Filter, Listing, ListOptions
from ingle.cli.output import NAMELESS, ask_first, tell
from ingle.cli.quantities import format_age, format_size
from ingle.v1 import image_pb2, vm_pb2

_ACCELERATIONS = vm_pb2.Acceleration.DESCRIPTOR


def _listing(names: Mapping[str, str]) -> Listing[image_pb2.WarmMemory]:
    """`names`: of images, by id."""

    def name(memory: image_pb2.WarmMemory) -> str:
        return names.get(memory.image_id, NAMELESS)

    return Listing(
        message=image_pb2.WarmMemory,
        columns=(
            Column("IMAGE", name),
            Column("KEY", lambda memory: memory.key, is_id=True),
            Column("VCPUS", lambda memory: str(memory.vcpus)),
            Column("MEMORY", lambda memory: format_size(memory.memory_bytes)),
            Column("DISK", lambda memory: format_size(memory.disk_bytes)),
            Column("ACCEL", lambda memory: enum_name(_ACCELERATIONS, memory.acceleration)),
            Column("ON DISK", lambda memory: format_size(memory.allocated_bytes)),
            Column("VMS", lambda memory: str(memory.vms)),
            Column("USABLE", lambda memory: "yes" if memory.usable else "no"),
            Column("USED", lambda memory: format_age(memory.used_at.ToDatetime(UTC))),
        ),
        name=lambda memory: memory.key,
        filters={"name": Filter(lambda memory: [name(memory)])},
    )


def list_them(client: Client, options: ListOptions) -> None:
    """Print those that are there."""
    chosen = _listing(_names(client)).chosen(options)
    memories = client.all(image_pb2.ListWarmMemoriesRequest(), image_pb2.ListWarmMemoriesResponse).memories
    chosen.show(memories)


def prune(client: Client, *, everything: bool, force: bool, dry_run: bool, json: bool) -> None:
    """Delete those that no VM can begin with; with `everything` those as well that no VM runs from."""
    if not force or dry_run:
        unused = _pruned(client, everything=everything, dry_run=True)
        if dry_run:
            _tell(client, unused, "would free", json=json)
            return
        if unused:
            ask_first(
                f"Delete {len(unused)} memor{'ies' if len(unused) > 1 else 'y'} of guests, {_size(unused)}?",
                f"ingle image prune --warm {'--all ' if everything else ''}--force",
            )
    _tell(client, _pruned(client, everything=everything), "freed", json=json)


def show(client: Client, memory: image_pb2.WarmMemory, *, json: bool) -> None:
    """Print one."""
    _listing(_names(client)).chosen(ListOptions(json=json)).show([memory])


def _pruned(client: Client, *, everything: bool, dry_run: bool = False) -> Sequence[image_pb2.WarmMemory]:
    request = image_pb2.PruneWarmMemoriesRequest(dry_run=dry_run, all=everything)
    return client.call(request, image_pb2.PruneWarmMemoriesResponse).memories


def _tell(client: Client, memories: Sequence[image_pb2.WarmMemory], what: str, *, json: bool) -> None:
    _listing(_names(client)).chosen(ListOptions(json=json)).show(memories)
    if not json:
        tell(f"{what} {_size(memories)}")


def _size(memories: Sequence[image_pb2.WarmMemory]) -> str:
    return format_size(sum(memory.allocated_bytes for memory in memories))


def _names(client: Client) -> Mapping[str, str]:
    images = client.all(image_pb2.ListImagesRequest(), image_pb2.ListImagesResponse).images
    return {image.id: " ".join(image.names) or NAMELESS for image in images}
