"""The same virtual machines as those of tests/integration."""

from integration.conftest import prepared, server, shared_vm, warm

__all__ = ("prepared", "server", "shared_vm", "warm")
