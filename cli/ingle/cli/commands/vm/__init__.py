"""`ingle vm`: virtual machines."""

from ingle.cli.lazy import Group, new_app

_HERE = "ingle.cli.commands.vm"


class _Vm(Group):
    targets = {  # noqa: RUF012 - a ClassVar of the base
        "run": f"{_HERE}.run:run",
        "exec": f"{_HERE}.run:exec",
        "create": f"{_HERE}.create:create",
        "set": f"{_HERE}.create:set",
        "start": f"{_HERE}.lifecycle:start",
        "stop": f"{_HERE}.lifecycle:stop",
        "restart": f"{_HERE}.lifecycle:restart",
        "kill": f"{_HERE}.lifecycle:kill",
        "delete": f"{_HERE}.lifecycle:delete",
        "prune": f"{_HERE}.lifecycle:prune",
        "list": f"{_HERE}.inspect:list",
        "show": f"{_HERE}.inspect:show",
        "stats": f"{_HERE}.inspect:stats",
        "health": f"{_HERE}.inspect:health",
        "ping": f"{_HERE}.inspect:ping",
        "logs": f"{_HERE}.inspect:logs",
    }
    aliases = {**Group.aliases, "ps": "list"}  # noqa: RUF012


app = new_app("Run, keep, look at and delete virtual machines.", cls=_Vm)


@app.callback()
def vm() -> None:
    """Makes the app a group."""
