"""How much is left of what a caller may have."""

from ingle.api_server.model.check import Check
from ingle.api_server.model.quota import NAMES, NO_LIMITS, Quota, Use, told

_NEARLY = 0.9


def quota_check(quota: Quota, use: Use) -> Check:
    """A warning where nearly all is used: the next create or start may be refused."""
    if quota == NO_LIMITS:
        return Check("quota", "pass", "none")
    limits = {name: getattr(quota, name) for name in NAMES if getattr(quota, name) is not None}
    used = {name: getattr(use, name) for name in limits}
    detail = ", ".join(f"{name} {told(name, used[name])} of {told(name, limit)}" for name, limit in limits.items())
    full = [name for name, limit in limits.items() if used[name] >= limit * _NEARLY]
    if full:
        return Check("quota", "warn", detail, "ingle vm list; stop or delete what nobody needs")
    return Check("quota", "pass", detail)
