"""What the server uses, and what this command line's environment says that it doesn't."""

import os
from typing import TYPE_CHECKING

from ingle.cli.errors import CliError
from ingle.cli.output import tell
from ingle.v1.system_pb2 import GetSettingsRequest, GetSettingsResponse

if TYPE_CHECKING:
    from ingle.cli.client import Client


def asked(client: "Client") -> GetSettingsResponse:
    """The server's settings. Raises CliError."""
    ours = {key: value for key, value in os.environ.items() if key.startswith("INGLE_")}
    return client.call(GetSettingsRequest(environment=ours), GetSettingsResponse)


def tell_differences(client: "Client") -> None:
    """On stderr. A server that doesn't know the question, or hangs up, is none of this function's concern."""
    try:
        differences = asked(client).differences
    except CliError:
        return
    for difference in differences:
        tell(f"warning: {difference}")
