"""`ingle version`."""

from ingle.cli.client import API_VERSION, connect_if_running
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson
from ingle.cli.output import print_json, say
from ingle.version import VERSION

app = new_app()


@app.command(epilog=examples("ingle version", "ingle version --json"))
def version(json: AsJson = False) -> None:
    """Version of this client, and of the server if it runs."""
    from ingle.v1.system_pb2 import PingRequest, PingResponse  # noqa: PLC0415 - not loaded for the help

    server = None
    client = connect_if_running()
    if client is not None:
        with client:
            server = client.call(PingRequest(), PingResponse)
    if json:
        print_json(
            {
                "client": {"version": VERSION, "api_version": int(API_VERSION)},
                "server": {"version": server.version, "api_version": server.api_version} if server else None,
            }
        )
        return
    say(f"client  {VERSION} (API {API_VERSION})")
    say(f"server  {server.version} (API {server.api_version})" if server else "server  not running")
