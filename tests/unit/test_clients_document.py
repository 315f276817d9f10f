"""docs/clients.md says what the code says, and names tests that there are."""

import re
from pathlib import Path

from ingle.api_server.adapters.guest.patience import PATIENCE
from ingle.api_server.model.errors import Reason
from ingle.api_server.rpc import interceptors
from ingle.api_server.rpc.errors import OP_ID_KEY, VERSION_KEY, wire_error
from ingle.api_server.version import API_VERSION

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


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", DOCUMENT)
    assert len(named) > 5
    for file, test in named:
        text = (REPOSITORY / "tests" / file).read_text()
        assert not test or re.search(rf"^(async )?def {test}\(", text, flags=re.MULTILINE), test
