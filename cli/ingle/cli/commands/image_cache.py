"""`ingle image cache`: layers of images, which are kept for the next one."""

from ingle.cli.client import connect
from ingle.cli.jsonable import to_json
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson, DryRun
from ingle.cli.output import print_json, tell
from ingle.cli.quantities import format_size
from ingle.v1 import image_pb2

app = new_app(
    "Layers of images, which are kept so that the next image need not fetch them.",
    first=("ingle image cache prune --dry-run", "ingle image cache prune"),
)


@app.command(epilog=examples("ingle image cache prune --dry-run", "ingle image cache prune"))
def prune(dry_run: DryRun = False, json: AsJson = False) -> None:
    """Delete the layers that no pull uses just now. Images and VMs need none of them; a pull fetches what it lacks.

    They are bounded by layer_cache_bytes, too, the least recently used going first."""
    with connect() as client:
        request = image_pb2.PruneImageLayersRequest(dry_run=dry_run)
        pruned = client.call(request, image_pb2.PruneImageLayersResponse)
    if json:
        print_json(to_json(pruned))
        return
    tell(f"{'would free' if dry_run else 'freed'} {format_size(pruned.bytes)} of {pruned.blobs} layers")
