"""`ingle`, and `python -m ingle.cli`. Almost nothing is loaded here: a signal may come at any moment."""

from ingle.cli import signals

TYPE_CHECKING = False  # typing's own: it takes 20 ms to load
if TYPE_CHECKING:
    from typing import Never


def main() -> "Never":
    """The entry point. Exit codes: see ingle.cli.errors."""
    signals.leave_at_once()
    from ingle.cli.entry import run  # noqa: PLC0415 - a tenth of a second

    try:
        run()
    finally:
        signals.leave_at_once()


if __name__ == "__main__":
    main()
