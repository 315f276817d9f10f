"""What `ingle doctor` finds, by itself or through the server."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding. `remedy` is what a person can type; empty when all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
