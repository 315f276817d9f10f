"""Where images and kernels are kept: a content-addressed directory."""

from ingle.api_server.adapters.library.directory import DirectoryLibrary

__all__ = ["DirectoryLibrary"]
