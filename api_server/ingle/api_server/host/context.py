"""What every layer may want to know about the call it works for."""

from contextvars import ContextVar

current_operation: ContextVar[str] = ContextVar("current_operation", default="")
"""The op_id of the operation under way in this task; empty outside of one. The server sets it."""
