"""What a guest's own programs made of its falling asleep, or waking."""

import logging

from ingle.api_server.model.guest import HookResult

log = logging.getLogger(__name__)


def note(hook: HookResult | None, vm_id: str) -> None:
    """One that has failed is told in the log, and changes nothing: who sleeps is the owner's to say."""
    if hook is None or not (hook.exit_code or hook.timed_out):
        return
    how = "took too long, and was killed" if hook.timed_out else f"ended with {hook.exit_code}"
    log.warning("a hook in the guest %s", how, extra={"vm": vm_id, "said": hook.output})
