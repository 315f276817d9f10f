"""`ingle-server`, and `python -m ingle.api_server`."""

import gc
import sys


def main() -> int:
    """The entry point. Exit codes: see ingle.api_server.main."""
    gc.disable()  # what is loaded stays: to look for garbage in it was a fifth of a start. serve() turns it on again
    from ingle.api_server.main import main as run  # noqa: PLC0415 - most of a start

    return run()


if __name__ == "__main__":
    sys.exit(main())
