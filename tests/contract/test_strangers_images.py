"""Images of several users: what one has made is nobody else's surprise."""

import os

import pytest

from contract.test_strangers import Place, call, create, place
from image_archives import ImageArchive
from ingle.v1 import image_pb2 as image
from ingle.v1 import vm_pb2 as vm
from oci_registry import Entry, layer
from uploading import image_upload, sent_image

__all__ = ["place"]

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")


def test_what_a_registry_has_is_given_to_nothing_else_by_anybody(place: Place) -> None:
    host = "127.0.0.1:1"
    saved = ImageArchive().docker({f"{host}/app:v1": [layer(Entry("file", b"of Bob's"))]}).content()
    by_its_own_name = list(sent_image(image.RegisterImageStart(archive=True, source="Bob's"), saved))
    mine = list(sent_image(image.RegisterImageStart(archive=True, source="Bob's", name="app:mine"), saved))
    assert call(place.bob, "RegisterImage", mine).code == "OK"
    for name, requests in (
        ("RegisterImage", by_its_own_name),
        ("RegisterImage", list(image_upload("registry.example/app:v1", b"x"))),
        ("RegisterImage", list(image_upload("docker.io/library/debian:bookworm", b"x"))),
        ("TagImage", [image.TagImageRequest(image="app:mine", name="registry.example/app")]),
        ("SaveImage", [image.SaveImageRequest(vm=create(place.bob, "his").id, name="registry.example/app:v1")]),
    ):
        heard = call(place.bob, name, requests)
        assert (heard.code, "a registry's" in heard.said) == ("PERMISSION_DENIED", True), heard
    assert call(place.bob, "DeleteVm", [vm.DeleteVmRequest(vm="his", force=True)]).code == "OK"
    assert call(place.admin, "RegisterImage", by_its_own_name).code == "OK"
    both = f"{host}/app:v1"  # of one image
    assert call(place.admin, "DeleteImage", [image.DeleteImageRequest(image=both, name=both)]).code == "OK"
    assert call(place.bob, "DeleteImage", [image.DeleteImageRequest(image="app:mine")]).code == "OK"
