"""What a guest boots from besides its kernel: the initramfs."""

from ingle.api_server.adapters.boot.initramfs import Initramfs

__all__ = ["Initramfs"]
