"""Root file systems: an ext4 file from Debian's packages, a registry's image, a tar archive, a directory, or another
ext4 image."""

from ingle.api_server.adapters.rootfs.layer_cache import DirectoryLayerCache
from ingle.api_server.adapters.rootfs.registry import Registries
from ingle.api_server.adapters.rootfs.source import RootFileSystems

__all__ = ["DirectoryLayerCache", "Registries", "RootFileSystems"]
