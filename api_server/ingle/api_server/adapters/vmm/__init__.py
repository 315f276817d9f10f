"""What any VMM needs, whichever engine it is of: the room below the engines, and no engine itself.

A VMM is one process of ours in its VM's state directory, in a session of its own, with `process_name` of its VM among
its arguments: so it is found, and ended, by a server that does not have its engine.
"""

from ingle.api_server.adapters.vmm.cage import Cage
from ingle.api_server.adapters.vmm.found import FoundVmms, vmms_below
from ingle.api_server.adapters.vmm.probe import known_problems

__all__ = ["Cage", "FoundVmms", "known_problems", "vmms_below"]
