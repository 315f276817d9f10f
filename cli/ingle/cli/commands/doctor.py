"""`ingle doctor`: what works on this machine. The server examines the host; this shows what it found."""

import json as json_module
import subprocess
from typing import Any

import typer

from ingle.cli.errors import SERVER_FAILED_TO_START, failed
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson
from ingle.cli.output import table
from ingle.cli.server_process import SERVER_COMMAND, why_it_failed

app = new_app()


@app.command(epilog=examples("ingle doctor", "ingle doctor --json"))
def doctor(json: AsJson = False) -> None:
    """Check this host, and say what to do about what is missing.

    Exit code 1 when no VM could run."""
    examined = subprocess.run([*SERVER_COMMAND, "doctor", "--json"], capture_output=True, check=False)
    try:
        report = json_module.loads(examined.stdout)
    except ValueError as error:
        said = examined.stderr.decode(errors="replace").splitlines()
        message, remedy = why_it_failed("the examination ended without a report", said)
        raise failed(SERVER_FAILED_TO_START, message, remedy) from error
    typer.echo(json_module.dumps(report, indent=2) if json else _as_text(report))
    raise typer.Exit(examined.returncode)


def _as_text(report: dict[str, Any]) -> str:
    lines = []
    for check in report["checks"]:
        lines.append(f"{check['status']:<4}  {check['name']}: {check['detail']}")
        if check["remedy"]:
            lines.append(f"      remedy: {check['remedy']}")
    settings = ((setting["name"], str(setting["value"]), setting["origin"]) for setting in report["settings"])
    return "\n".join([*lines, "", table(("SETTING", "VALUE", "FROM"), settings)])
