"""`python -m ingle.host_helper`."""

import sys

from ingle.host_helper.main import main

sys.exit(main())
