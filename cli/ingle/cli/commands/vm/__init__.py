"""`ingle vm`: virtual machines."""

from ingle.cli.lazy import Group, Target, new_app

_HERE = "ingle.cli.commands.vm"


class _Vm(Group):
    targets = {  # noqa: RUF012 - a ClassVar of the base
        "run": Target(f"{_HERE}.run:run"),
        "exec": Target(f"{_HERE}.run:exec"),
        "shell": Target(f"{_HERE}.shell"),
        "session": Target(f"{_HERE}.session"),
        "cp": Target(f"{_HERE}.cp"),
        "file": Target(f"{_HERE}.file"),
        "forward": Target(f"{_HERE}.forward:forward"),
        "ports": Target(f"{_HERE}.forward:ports"),
        "create": Target(f"{_HERE}.create:create"),
        "set": Target(f"{_HERE}.create:set"),
        "start": Target(f"{_HERE}.lifecycle:start"),
        "stop": Target(f"{_HERE}.lifecycle:stop"),
        "restart": Target(f"{_HERE}.lifecycle:restart"),
        "kill": Target(f"{_HERE}.lifecycle:kill"),
        "delete": Target(f"{_HERE}.lifecycle:delete"),
        "prune": Target(f"{_HERE}.lifecycle:prune"),
        "list": Target(f"{_HERE}.inspect:list"),
        "show": Target(f"{_HERE}.inspect:show"),
        "stats": Target(f"{_HERE}.stats"),
        "health": Target(f"{_HERE}.inspect:health"),
        "ping": Target(f"{_HERE}.inspect:ping"),
        "logs": Target(f"{_HERE}.inspect:logs"),
    }
    aliases = {**Group.aliases, "ps": "list"}  # noqa: RUF012


app = new_app("Run, keep, look at and delete virtual machines.", cls=_Vm)


@app.callback()
def vm() -> None:
    """Makes the app a group."""
