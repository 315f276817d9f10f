"""What a reference stands for: an id, a name or, for who only looks, a unique prefix of an id.

An id wins over a name, and both over a prefix. Every call begins with this, so the usual case is one query.
"""

import re
import sqlite3
from dataclasses import dataclass
from difflib import get_close_matches

from ingle.api_server.adapters.sqlite import rows
from ingle.api_server.model.errors import NotFound, Reason

_HEX = re.compile(r"[0-9a-f]+")
_SHOWN = 12
_LONGEST_TYPED = 100
_LOOKED_THROUGH = 1000


@dataclass(frozen=True, slots=True)
class Kind:
    """How references to one kind of thing are resolved and told."""

    noun: str
    missing: Reason
    table: str
    select: str
    by_id_or_name: str
    named: str

    @property
    def list_command(self) -> str:
        """What shows all of them."""
        return f"ingle {self.noun.lower()} list"


_BY_LINK = "WHERE id = ?1 OR id = (SELECT {noun}_id FROM {noun}_names WHERE name = ?1) ORDER BY id != ?1 LIMIT 1"

_BY_COLUMN = "WHERE id = ?1 OR name = ?1 ORDER BY id != ?1 LIMIT 1"

VM = Kind("VM", Reason.VM_NOT_FOUND, "vms", rows.SELECT_VMS, _BY_COLUMN, "vms")
IMAGE = Kind(
    "image", Reason.IMAGE_NOT_FOUND, "images", rows.SELECT_IMAGES, _BY_LINK.format(noun="image"), "image_names"
)
KERNEL = Kind(
    "kernel", Reason.KERNEL_NOT_FOUND, "kernels", rows.SELECT_KERNELS, _BY_LINK.format(noun="kernel"), "kernel_names"
)


def exact(db: sqlite3.Connection, kind: Kind, reference: str) -> sqlite3.Row:
    """The row of the thing with that id or name. Raises NotFound."""
    row = _exact(db, kind, reference)
    if row is None:
        raise _not_found(db, kind, reference, _ids_that_begin(db, kind, reference))
    return row


def found(db: sqlite3.Connection, kind: Kind, reference: str) -> sqlite3.Row:
    """The same, or the row of the one thing whose id begins so. Raises NotFound, also AMBIGUOUS_REFERENCE."""
    row = _exact(db, kind, reference)
    if row is not None:
        return row
    ids = _ids_that_begin(db, kind, reference)
    if len(ids) > 1:
        raise NotFound(
            Reason.AMBIGUOUS_REFERENCE,
            f"{reference!r} stands for several {kind.noun}s: {', '.join(each[:_SHOWN] for each in ids)}…",
            "use more of the id, or the name",
        )
    row = _exact(db, kind, ids[0]) if ids else None
    if row is None:
        raise _not_found(db, kind, reference)
    return row


def not_found(kind: Kind, reference: str) -> NotFound:
    """Nothing has that id or name."""
    return NotFound(kind.missing, f"no {kind.noun} {reference!r}", kind.list_command)


def _not_found(db: sqlite3.Connection, kind: Kind, reference: str, ids: list[str] | None = None) -> NotFound:
    """The same, with a name that it may have been meant for; `ids` begin with it."""
    if not ids:
        meant = _meant(db, kind, reference)
        return NotFound(kind.missing, f"no {kind.noun} {reference!r}{meant}", kind.list_command)
    return NotFound(
        kind.missing,
        f"no {kind.noun} {reference!r}: what changes one takes its name or its whole id, no part of one",
        kind.list_command,
    )


def _meant(db: sqlite3.Connection, kind: Kind, reference: str) -> str:
    if len(reference) > _LONGEST_TYPED:
        return ""
    names = [row[0] for row in db.execute(f"SELECT name FROM {kind.named} LIMIT {_LOOKED_THROUGH}")]
    tagged = [name for name in names if name.startswith(f"{reference}:")]
    close = tagged or get_close_matches(reference, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _exact(db: sqlite3.Connection, kind: Kind, reference: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(f"{kind.select} {kind.by_id_or_name}", (reference,)).fetchone()
    return row


def _ids_that_begin(db: sqlite3.Connection, kind: Kind, reference: str) -> list[str]:
    """Three at most."""
    if not _HEX.fullmatch(reference):
        return []
    sql = f"SELECT id FROM {kind.table} WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 3"
    return [row[0] for row in db.execute(sql, (reference, reference + "g"))]
