"""What a look at the host finds."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail"]
"""`fail`: something that users ask for will fail. `warn`: it is slower, weaker or nearer its end than it should be."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `remedy` is what a person can type; empty when all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
