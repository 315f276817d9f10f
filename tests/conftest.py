"""What holds for all tests."""

import os

# Tests fork, for pseudo-terminals, while gRPC's threads are at work here; its fork handlers crash such a child before
# it becomes another program. Read when grpc is loaded, so it is set before any test is.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
