"""What this server is, and which contract it speaks."""

from importlib.metadata import version

VERSION = version("ingle")

API_VERSION = 1
"""Raised when a client of the old contract could be misled by the new one; additions do not count."""
