"""`ingle vm`: virtual machines."""

from ingle.cli.lazy import Group, Target, new_app

_HERE = "ingle.cli.commands.vm"


class _Vm(Group):
    targets = {  # noqa: RUF012 - a ClassVar of the base
        "run": Target(
            f"{_HERE}.run",
            "Run a command in a new VM; without one, what its image is to run or, on a terminal, a shell.",
        ),
        "exec": Target(f"{_HERE}.exec", "Run a command in a running VM."),
        "shell": Target(f"{_HERE}.shell", "Open the login shell of a VM, or come back to it."),
        "session": Target(f"{_HERE}.session", "Terminals in VMs, which outlive whoever looks at them."),
        "cp": Target(f"{_HERE}.cp", "Copy a file or directory to or from a VM."),
        "file": Target(f"{_HERE}.file", "Files in a running VM."),
        "forward": Target(
            f"{_HERE}.forward:forward",
            "Make servers of a VM reachable from here, until Ctrl-C (exit code 130) or the VM's end.",
        ),
        "ports": Target(
            f"{_HERE}.forward:ports", "The ports that processes in a VM listen on, and which processes these are."
        ),
        "create": Target(f"{_HERE}.create", "Create a VM and start it; prints its name."),
        "update": Target(
            f"{_HERE}.update:update",
            "Change a VM's name, vCPUs, memory, disk size, NAT, labels, sleep, limits, or start with the host.",
        ),
        "rename": Target(f"{_HERE}.update:rename", "Give a VM another name, at once; its guest hears of it."),
        "start": Target(f"{_HERE}.lifecycle:start", "Start stopped VMs; ready when their agents answer."),
        "stop": Target(f"{_HERE}.lifecycle:stop", "Sync and power off; killed after the timeout."),
        "restart": Target(f"{_HERE}.lifecycle:restart", "Stop and start again, with a new boot id."),
        "kill": Target(f"{_HERE}.lifecycle:kill", "Signal the VMM without asking the guest."),
        "pause": Target(f"{_HERE}.sleep:pause", "Have VMs stand still, in memory, until somebody uses them."),
        "resume": Target(f"{_HERE}.sleep:resume", "Let paused VMs go on."),
        "hibernate": Target(f"{_HERE}.sleep:hibernate", "Write VMs' memory to disk, until somebody uses them."),
        "wake": Target(f"{_HERE}.sleep:wake", "Let hibernated or paused VMs go on where they were."),
        "wait": Target(f"{_HERE}.wait", "Wait until all of the VMs are in a state, healthy or gone."),
        "fork": Target(
            f"{_HERE}.fork:fork", "Make VMs that go on where a VM is now, or a snapshot was; prints their names."
        ),
        "restore": Target(f"{_HERE}.fork:restore", "Put a VM back to a snapshot of it."),
        "delete": Target(f"{_HERE}.lifecycle:delete", "Delete VMs and their disks."),
        "prune": Target(f"{_HERE}.lifecycle:prune", "Delete all VMs that are stopped or in error."),
        "list": Target(f"{_HERE}.inspect:list", "All of your VMs, oldest first."),
        "show": Target(f"{_HERE}.inspect:show", "Everything about one VM."),
        "inspect": Target(f"{_HERE}.inspect:inspect", "Everything about VMs, as a list in JSON."),
        "stats": Target(f"{_HERE}.stats", "What VMs take of the host, and how their guests feel."),
        "health": Target(f"{_HERE}.inspect:health", "Tell whether the VMM lives and the guest answers."),
        "ping": Target(f"{_HERE}.inspect:ping", "One round trip from the server to the guest's agent."),
        "logs": Target(
            f"{_HERE}.logs", "The guest's serial console: byte for byte, or on a terminal as text that can't drive it."
        ),
    }
    aliases = {**Group.aliases, "ps": "list", "set": "update"}  # noqa: RUF012


app = new_app(
    "Run, keep, look at and delete virtual machines.",
    first=("ingle vm run --rm -- uname -a", "ingle vm create --name web", "ingle vm list"),
    cls=_Vm,
)


@app.callback()
def vm() -> None:
    """Makes the app a group."""
