"""Guests that have booted and run nothing yet: from the memory of such a one, others go on instead of booting."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ingle.api_server.model.network import USER_NETWORK
from ingle.api_server.model.vm import Acceleration, Init, Vm

FORMAT = 2
"""Of what is kept: another one means another key."""

_LONGEST_KEY = 64


@dataclass(frozen=True, slots=True)
class Machine:
    """All that the memory of a pristine guest depends on: one that differs in any of it is another one's.

    Its owner is part of it, since what two guests share of a memory is not for two users."""

    owner: int
    image_id: str
    kernel_id: str
    engine: str
    engine_key: str
    """As of Engine.memory_key: version, processor, devices."""

    acceleration: Acceleration
    vcpus: int
    memory_bytes: int
    disk_backend: str
    disk_bytes: int
    init: Init
    shared_network: bool
    """Whether it has what connects it to one that VMs share, though it was in none."""

    agent: str
    """As of BootMedia.agent."""

    @staticmethod
    def of(vm: Vm, acceleration: Acceleration, engine_key: str, agent: str) -> "Machine":
        """The one that `vm` would be started on."""
        settings = vm.settings
        return Machine(
            owner=vm.owner,
            image_id=settings.image_id,
            kernel_id=settings.kernel_id,
            engine=settings.engine,
            engine_key=engine_key,
            acceleration=acceleration,
            vcpus=settings.vcpus,
            memory_bytes=settings.memory_bytes,
            disk_backend=settings.disk_backend,
            disk_bytes=settings.disk_bytes,
            init=settings.init,
            shared_network=settings.network != USER_NETWORK,
            agent=agent,
        )

    @property
    def key(self) -> str:
        """64 hex digits: its name in the cache."""
        text = json.dumps({"format": FORMAT, **self.as_json()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return asdict(self) | {"acceleration": self.acceleration.value, "init": self.init.value}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Machine":
        """Raises TypeError, ValueError and KeyError for anything that `as_json` has not made."""
        acceleration, init = Acceleration(value["acceleration"]), Init(value["init"])
        return Machine(**value | {"acceleration": acceleration, "init": init})


@dataclass(frozen=True, slots=True)
class WarmMemory:
    """A pristine guest in the cache: its memory, for Engine.launch, and its disk, a file of the machine's backend."""

    machine: Machine
    memory: Path
    disk: Path
    token: bytes = field(repr=False)
    """What its agent wants to hear first of those who tell it who it is from now on."""

    created_at: datetime
    used_at: datetime
    """When a VM was last started from it; when it was made, at first."""

    allocated_bytes: int
    """Blocks that it takes."""

    @property
    def key(self) -> str:
        """Its name in the cache."""
        return self.machine.key


def is_key(text: str) -> bool:
    """Whether this can be the name of one."""
    return len(text) == _LONGEST_KEY and all(letter in "0123456789abcdef" for letter in text)
