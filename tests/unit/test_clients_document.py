"""docs/clients.md says what the code says, and names tests that there are."""

import re
from pathlib import Path

from ingle.api_server.adapters.guest.patience import PATIENCE
from ingle.api_server.model.errors import Reason
from ingle.api_server.rpc import bounds, interceptors
from ingle.api_server.rpc.errors import OP_ID_KEY, VERSION_KEY, wire_error
from ingle.api_server.version import API_VERSION
from ingle.v1 import guest_pb2, vm_pb2

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs/clients.md").read_text()


def test_every_reason_is_listed_with_its_code() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (`.*`) \|$", DOCUMENT, flags=re.MULTILINE)
    listed = {(reason, code) for code, reasons in rows for reason in re.findall(r"`([A-Z_]+)`", reasons)}
    assert listed == {(reason.name, wire_error(reason, "", "", "")[0].name) for reason in Reason}


def test_numbers_and_keys_are_those_of_the_code() -> None:
    options = dict(interceptors.TRANSPORT)
    assert f"each message of a stream | {interceptors.MESSAGE_LIMIT >> 20} MiB" in DOCUMENT
    assert f"from {options['grpc.max_receive_message_length'] >> 20} MiB on" in DOCUMENT
    assert f"`{VERSION_KEY}` | to the server | the contract that the client was made for, `{API_VERSION}`" in DOCUMENT
    assert f"`{OP_ID_KEY}` | initial" in DOCUMENT
    assert PATIENCE.late_seconds == 3
    assert "three seconds after the timeout" in DOCUMENT


def test_bounds_of_requests_are_those_of_the_code() -> None:
    limits = DOCUMENT.partition("## Limits")[2].partition("\n## ")[0]
    fields = {
        field.name: field for kind in (vm_pb2.ListVmsRequest, guest_pb2.ExecStart) for field in kind.DESCRIPTOR.fields
    }
    argv, env, path = (bounds.bound_of(fields[name]) for name in ("argv", "env", "working_directory"))
    assert f"a label and the like | {bounds.TEXT.bytes >> 10} KiB," in limits
    assert f"a path, a `page_token` | {path.bytes >> 10} KiB |" in limits
    assert f"paths of a mask and the like | {bounds.bound_of(fields['labels']).count}," in limits
    assert f"in one message | {bounds.DATA.bytes >> 20} MiB" in limits
    assert argv.total is not None
    assert env.total is not None
    assert f"`argv` | {argv.count}, of {argv.bytes >> 10} KiB each and {argv.total >> 20} MiB in all" in limits
    assert f"| {env.count}, names and values of {env.bytes >> 10} KiB each and {env.total >> 20} MiB in all" in limits


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", DOCUMENT)
    assert len(named) > 5
    for file, test in named:
        text = (REPOSITORY / "tests" / file).read_text()
        assert not test or re.search(rf"^(async )?def {test}\(", text, flags=re.MULTILINE), test
