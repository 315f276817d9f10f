"""`ingle`, and `python -m ingle.cli`. Almost nothing is loaded here: a signal may come at any moment."""

import gc

from ingle.cli import signals

TYPE_CHECKING = False  # typing's own: it takes 20 ms to load
if TYPE_CHECKING:
    from typing import Never


# More objects than a short command has. What it loads is no garbage; to look for some took a twentieth of its time.
_MANY_OBJECTS = 50_000


def main() -> "Never":
    """The entry point. Exit codes: see ingle.cli.errors."""
    signals.leave_at_once()
    gc.set_threshold(_MANY_OBJECTS)
    from ingle.cli.entry import run  # noqa: PLC0415 - a tenth of a second

    try:
        run()
    finally:
        signals.leave_at_once()
        gc.freeze()  # at its end Python goes through all there is, several times: a sixth of a short command's time


if __name__ == "__main__":
    main()
