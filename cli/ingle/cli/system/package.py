"""What the Debian package's scripts have done by the code that they install: dpkg puts files, this knows the machine.

python -m ingle.cli.system.package units    prints the units that this machine takes, in the order in which they start
python -m ingle.cli.system.package policy   writes the helper's where there is none, with pools that nothing overlaps
python -m ingle.cli.system.package end      stops everything, VMs too, and removes what the helpers have made"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ingle.cli.errors import EXIT_FAILED, CliError
from ingle.cli.output import tell, tell_failure
from ingle.cli.system.installation import System, needed_units, planned_policy
from ingle.cli.system.manager import Systemd


def main(argv: Sequence[str]) -> int:
    """Answers the exit code."""
    try:
        match argv:
            case ["units"]:
                sys.stdout.write("".join(f"{unit}\n" for unit in needed_units()))
            case ["policy"]:
                planned_policy(Path(sys.prefix)).write(tell)
            case ["end"]:
                System(Systemd()).end(tell)
            case _:
                raise ValueError(argv)
    except CliError as error:
        for failure in error.failures:
            tell_failure(failure, as_json=False)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
