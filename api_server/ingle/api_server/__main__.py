"""`python -m ingle.api_server`."""

import sys

from ingle.api_server.main import main

if __name__ == "__main__":
    sys.exit(main())
