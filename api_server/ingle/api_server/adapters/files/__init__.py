"""VM directories on the local file system."""

from ingle.api_server.adapters.files.vm_files import LocalVmFiles

__all__ = ["LocalVmFiles"]
