"""The way to a guest's files."""

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Protocol

from ingle.api_server.model.guest_files import Copied, FileInfo, Listing, ReadEnd, ReadSpec, WriteSpec


class GuestFiles(Protocol):
    """Files of one guest. Paths are absolute, or relative to the home of `user` (name or uid; empty: root), whose
    rights decide. Bytes that are no UTF-8 are lone surrogates in them, as in Python's own (PEP 383).

    All raise GuestError: what GuestChannel's calls raise, GUEST_USER_NOT_FOUND, and a reason for each way in which a
    kernel refuses (FILE_NOT_FOUND to FILE_IO_FAILED). Cancelling a call, or closing its iterator, ends it in the guest
    as well."""

    def read(self, spec: ReadSpec) -> AsyncGenerator[bytes | ReadEnd, None]:
        """The content as it comes, then ReadEnd. Not reading slows the guest."""

    async def write(self, spec: WriteSpec, data: AsyncIterable[bytes]) -> FileInfo:
        """Replace a file with all that `data` gives, as a whole or not at all. `append`: nothing before all has come;
        then only a full disk leaves a part."""

    async def stat(self, path: str, *, follow: bool = False, user: str = "") -> FileInfo:
        """Describe a file; `follow`: what a symbolic link leads to."""

    async def list(self, path: str, *, after: str = "", max_entries: int = 0, user: str = "") -> Listing:
        """A page, of LARGEST_PAGE at most, fewer where names are long. `after`: a former page's `next_after`."""

    async def make_directory(
        self, path: str, *, mode: int | None = None, owner: str = "", parents: bool = False, user: str = ""
    ) -> FileInfo:
        """Make a directory, of mode 0755 unless given. `parents`: those above too, and one that is there is fine."""

    async def remove(self, path: str, *, recursive: bool = False, user: str = "") -> None:
        """Remove a file, a link itself, an empty directory; `recursive`: any directory."""

    async def rename(self, path: str, new_path: str, *, replace: bool = False, user: str = "") -> None:
        """Move within a file system; FILE_EXISTS unless `replace`."""

    async def copy_in(
        self,
        path: str,
        archive: AsyncIterable[bytes],
        *,
        name: bytes = b"",
        preserve_owners: bool = False,
        user: str = "",
    ) -> Copied:
        """Unpack a tar archive in a directory. What came before a failure stays, each file as a whole. `name`: what the
        archive's top is called there, and a symbolic link of that name is followed."""

    def copy_out(self, path: str, *, contents: bool = False, user: str = "") -> AsyncGenerator[bytes | Copied, None]:
        """A tar archive of a file or directory as it is made, then Copied. `contents`: of what is in a directory."""
