"""Which contract this server speaks."""

API_VERSION = 1
"""Raised when a client of the old contract could be misled by the new one; additions do not count."""
