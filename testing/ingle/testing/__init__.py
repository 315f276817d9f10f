"""For the tests of ingle's clients: a whole server without machines, and a stand-in that answers what a test says.

Needs what a server needs: pip install 'ingle[server]'. docs/clients.md, "Testing against ingle", shows both.
"""

from ingle.testing.running import server
from ingle.testing.script import SILENCE, Call, Refusal
from ingle.testing.stand_in import StandIn

__all__ = ["SILENCE", "Call", "Refusal", "StandIn", "server"]
