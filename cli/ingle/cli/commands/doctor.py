"""`ingle doctor`: what works on this machine. The server examines the host, and this what is around the server."""

import json as json_module
import os
import subprocess
from collections.abc import Iterable
from typing import Any

import typer

from ingle.cli import paths
from ingle.cli.errors import EXIT_FAILED, SERVER_FAILED_TO_START, SERVER_UNREACHABLE, CliError, failed
from ingle.cli.findings import Check, Status
from ingle.cli.lazy import examples, new_app
from ingle.cli.options import AsJson
from ingle.cli.output import print_json, say, table
from ingle.cli.server_process import SERVER_COMMAND, why_it_failed
from ingle.cli.system.membership import membership_check

app = new_app()


@app.command(epilog=examples("ingle doctor", "ingle doctor --json", "INGLE_MODE=user ingle doctor"))
def doctor(json: AsJson = False) -> None:
    """Check this host, and say what to do about what is missing.

    Where this user has the system's server, that is asked, and its install examined as well.
    Exit code 1 when something that users ask for will fail."""
    address = paths.api_address()
    report = _of_system(address) if address.of_system else _of_own_server(address)
    if json:
        print_json(report)
    else:
        say(_as_text(report))
    if any(check["status"] == "fail" for check in report["checks"]):
        raise typer.Exit(EXIT_FAILED)


def _of_own_server(address: paths.Address) -> dict[str, Any]:
    """What this user's server says; where none runs, as one would find it."""
    from ingle.cli.server_process import connect as connect_if_running  # noqa: PLC0415

    if (running := connect_if_running(address)) is None:
        report = _of_a_server_to_come()
    else:
        running.close()
        checks, settings = _asked_server(address)
        report = {"checks": _plain(checks), "settings": settings}
    if os.environ.get(paths.MODE_VARIABLE) != "user":
        report["checks"] = [*_plain(_membership()), *report["checks"]]
    return report


def _of_a_server_to_come() -> dict[str, Any]:
    examined = subprocess.run([*SERVER_COMMAND, "doctor", "--json"], capture_output=True, check=False)
    try:
        report: dict[str, Any] = json_module.loads(examined.stdout)
    except ValueError as error:
        said = examined.stderr.decode(errors="replace").splitlines()
        message, remedy = why_it_failed("the examination ended without a report", said)
        raise failed(SERVER_FAILED_TO_START, message, remedy) from error
    return report


def _of_system(address: paths.Address) -> dict[str, Any]:
    from ingle.cli.system.examination import install_checks  # noqa: PLC0415 - only where there is an install
    from ingle.cli.system.manager import Systemd  # noqa: PLC0415

    about_server, settings = _asked_server(address)
    checks = [*_membership(), *install_checks(Systemd()), *about_server]
    return {"checks": _plain(checks), "settings": settings}


def _membership() -> list[Check]:
    check = membership_check(paths.SYSTEM_RUNTIME_DIRECTORY)
    return [] if check is None else [check]


def _asked_server(address: paths.Address) -> tuple[list[Check], list[dict[str, str]]]:
    """Its checks and settings; when it can't be asked, a check that says so."""
    from ingle.cli.client import connect_if_running  # noqa: PLC0415 - only here
    from ingle.cli.settings import asked  # noqa: PLC0415
    from ingle.v1.system_pb2 import CheckStatus, ExamineRequest, ExamineResponse  # noqa: PLC0415

    statuses: dict[int, Status] = {
        CheckStatus.CHECK_STATUS_PASS: "pass",
        CheckStatus.CHECK_STATUS_WARN: "warn",
        CheckStatus.CHECK_STATUS_FAIL: "fail",
    }
    try:
        client = connect_if_running()
        if client is None:
            raise failed(SERVER_UNREACHABLE, f"no server listens on {address.path}", address.remedy)
        with client:
            told = client.call(ExamineRequest(), ExamineResponse)
            differences = asked(client).differences
    except CliError as error:
        failure = error.failures[0]
        remedy = failure.remedy or "sudo ingle system restart; journalctl -u ingle -n 20"
        return [Check("server", "fail", failure.message, remedy)], []
    checks = [Check(each.name, statuses.get(each.status, "fail"), each.detail, each.remedy) for each in told.checks]
    restart = "sudo ingle system restart" if address.of_system else "ingle server restart"
    checks += [Check("settings", "warn", difference, restart) for difference in differences]
    settings = [{"name": each.name, "value": each.value, "origin": each.origin} for each in told.settings]
    return [Check("server", "pass", f"answers on {address.path}"), *checks], settings


def _plain(checks: Iterable[Check]) -> list[dict[str, str]]:
    return [
        {"name": check.name, "status": check.status, "detail": check.detail, "remedy": check.remedy} for check in checks
    ]


def _as_text(report: dict[str, Any]) -> str:
    lines = []
    for check in report["checks"]:
        lines.append(f"{check['status']:<4}  {check['name']}: {check['detail']}")
        if check["remedy"]:
            lines.append(f"      remedy: {check['remedy']}")
    settings = ((setting["name"], str(setting["value"]), setting["origin"]) for setting in report["settings"])
    return "\n".join([*lines, "", table(("SETTING", "VALUE", "FROM"), settings)])
