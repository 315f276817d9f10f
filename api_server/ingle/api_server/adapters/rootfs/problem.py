"""How this package says that a root file system can't be used."""

from ingle.api_server.model.errors import BadFile, Reason

ALLOWED = "a tar archive (plain, gzip, bzip2, xz, lzma, lz4 or zstd), an ext4 image, or a directory"


def bad(why: str, remedy: str = "") -> BadFile:
    """BadFile(IMAGE_INVALID) that says `why`, and what is allowed."""
    return BadFile(Reason.IMAGE_INVALID, f"the root file system can't be used: {why}; give {ALLOWED}", remedy)
