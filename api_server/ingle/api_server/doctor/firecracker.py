"""The second engine, which a host may do without."""

from ingle.api_server.adapters.firecracker import NAME, VERDICTS, Program, check_version
from ingle.api_server.adapters.vmm import known_problems
from ingle.api_server.config import Config
from ingle.api_server.host.tool import Tools, installed
from ingle.api_server.model.check import Check
from ingle.api_server.model.errors import IngleError
from ingle.api_server.model.spec import Defaults

_CHECK = "program firecracker"
_IN_VAIN = "VMs run in QEMU; --engine firecracker does not work"


async def firecracker_check(config: Config) -> Check:
    """Where it is and whether it can be used; it is missed by who has asked for it."""
    name = config.defaults.firecracker
    wanted = config.defaults.engine == NAME or name != Defaults().firecracker
    if not wanted and not installed(name):
        return Check(_CHECK, "pass", "not installed: VMs run in QEMU")
    program = Program(name, Tools(config.paths.state))
    try:
        path, version = program.require(), await program.version()
        check_version(version)
    except IngleError as error:
        return Check(_CHECK, "fail" if wanted else "warn", error.message, error.remedy)
    if problems := known_problems(config.paths.acceleration_verdicts, VERDICTS):
        return Check(_CHECK, "warn", f"{_IN_VAIN}: {'; '.join(problems)}", "use --engine qemu")
    return Check(_CHECK, "pass", f"{path}, {version}")
