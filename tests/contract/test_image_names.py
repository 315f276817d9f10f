"""Several names of one image, which come and go by themselves."""

from collections.abc import Iterator

import pytest

from contract.test_engines import delete
from contract.test_image_archives import got, ingle, names
from harness import Server, refused
from image_archives import ImageArchive
from ingle.v1 import image_pb2, vm_pb2
from oci_registry import Entry, layer
from uploading import archive_of, image_upload, sent_image


@pytest.fixture
def server(red_server: Server) -> Iterator[Server]:
    before = names(red_server)
    # Other content than that of the server's own image, or the two would be one.
    red_server.images.RegisterImage(image_upload("app:v1", archive_of({"other": red_server.root / "tree/file"})))
    yield red_server
    for vm in red_server.list():
        delete(red_server, vm.id)
    for name in names(red_server) - before:
        red_server.images.DeleteImage(image_pb2.DeleteImageRequest(image=name, name=name))


def test_a_name_of_several_goes_alone_and_the_last_with_the_image(server: Server) -> None:
    image = got(server, "app:v1")
    assert "app:v1 app:v2" in ingle(server, "image", "tag", "app:v1", "app:v2")
    ingle(server, "image", "tag", image.id[:12], "app:v3")
    assert list(got(server, "app:v3").names) == ["app:v1", "app:v2", "app:v3"]
    assert got(server, "app:v3").id == image.id
    assert "the image stays" in ingle(server, "image", "delete", "app:v1")
    assert list(got(server, image.id).names) == ["app:v2", "app:v3"]
    ingle(server, "image", "delete", "app:v2", "app:v3")
    assert not {"app:v2", "app:v3"} & names(server)
    assert refused(server.images.GetImage, image_pb2.GetImageRequest(image=image.id)).reason == "IMAGE_NOT_FOUND"


def test_by_its_id_an_image_goes_with_all_names(server: Server) -> None:
    image = got(server, "app:v1")
    ingle(server, "image", "tag", "app:v1", "app:v2")
    ingle(server, "image", "delete", image.id[:12])
    assert not {"app:v1", "app:v2"} & names(server)


def test_a_name_goes_also_while_a_vm_uses_the_image_and_the_last_does_not(server: Server) -> None:
    spec = vm_pb2.VmSpec(name="web", engine="red", image="app:v1", kernel="made-up")
    server.vms.CreateVm(vm_pb2.CreateVmRequest(spec=spec, no_start=True))
    ingle(server, "image", "tag", "app:v1", "app:v2")
    ingle(server, "image", "delete", "app:v2")
    assert "is used by VM web" in ingle(server, "image", "delete", "app:v1", code=1)
    assert list(got(server, "app:v1").names) == ["app:v1"]


def test_a_name_that_stood_for_another_image_moves(server: Server) -> None:
    tiny = got(server, "tiny")
    ingle(server, "image", "tag", "app:v1", "app:v2")
    ingle(server, "image", "tag", "tiny", "app:v2")
    assert got(server, "app:v2").id == tiny.id
    assert list(got(server, "app:v1").names) == ["app:v1"]


def test_an_image_has_no_more_names_than_everybody_may_be_told(server: Server) -> None:
    for number in range(99):
        server.images.TagImage(image_pb2.TagImageRequest(image="app:v1", name=f"app:more-{number}"))
    one_more = refused(server.images.TagImage, image_pb2.TagImageRequest(image="app:v1", name="app:one-more"))
    assert (one_more.reason, "100 are allowed" in one_more.message) == ("QUOTA_EXCEEDED", True)
    server.images.TagImage(image_pb2.TagImageRequest(image="app:v1", name="app:more-1"))
    server.images.DeleteImage(image_pb2.DeleteImageRequest(image="app:more-1", name="app:more-1"))
    server.images.TagImage(image_pb2.TagImageRequest(image="app:v1", name="app:one-more"))


def test_what_is_pruned_is_told_without_what_it_says(server: Server) -> None:
    start = image_pb2.RegisterImageStart(archive=True, source="a test", name="says:much")
    content = ImageArchive().docker({"x:1": [layer(Entry("f", b"x"))]}, {"Labels": {"much": "x" * 100_000}}).content()
    server.images.RegisterImage(sent_image(start, content))
    would = server.images.PruneImages(image_pb2.PruneImagesRequest(all=True, dry_run=True)).images
    (told,) = [image for image in would if "says:much" in image.names]
    assert (told.ByteSize() < 1000, got(server, "says:much").ByteSize() > 100_000) == (True, True)


@pytest.mark.parametrize(
    ("image", "name", "reason"), [("app:v1", "No", "INVALID_ARGUMENT"), ("none", "x", "IMAGE_NOT_FOUND")]
)
def test_what_cannot_be_named_is_refused(server: Server, image: str, name: str, reason: str) -> None:
    assert refused(server.images.TagImage, image_pb2.TagImageRequest(image=image, name=name)).reason == reason
