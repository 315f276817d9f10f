"""Users by name on this side, by uid on the server's."""

import os
import pwd

import pytest

from ingle.cli.owners import another, called, uid_of, with_uid
from ingle.cli.references import References
from ingle.v1 import guest_pb2, vm_pb2

NOBODY = pwd.getpwnam("nobody").pw_uid
NO_USER = 3_000_000_001


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("nobody/web", f"{NOBODY}/web"),
        ("1000/web", "1000/web"),
        ("root/0123456789ab", "0/0123456789ab"),
        ("nobody-of-that-name/web", "nobody-of-that-name/web"),
        ("/web", "/web"),
        ("web", "web"),
    ],
)
def test_the_server_is_told_a_uid_whatever_the_request(typed: str, sent: str) -> None:
    assert with_uid(typed) == sent
    references = References(lambda kind, text: text)
    look, use = vm_pb2.GetVmRequest(vm=typed), guest_pb2.ExecRequest(start=guest_pb2.ExecStart(vm=typed))
    for request in (look, use):
        references.complete(request)
    assert (look.vm, use.start.vm) == (sent, sent)


def test_ones_own_needs_no_owner() -> None:
    assert called(os.getuid(), "web") == "web"
    assert called(NO_USER, "web") == f"{NO_USER}/web"
    assert (another(os.getuid()), another(NO_USER)) == ("", str(NO_USER))
    assert (uid_of("root"), uid_of("17"), uid_of("nobody-of-that-name")) == (0, 17, None)
