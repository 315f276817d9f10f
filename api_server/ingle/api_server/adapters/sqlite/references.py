"""What a reference stands for: an id, a name or, for who only looks, a unique prefix of an id.

An id wins over a name, and both over a prefix. Every call begins with this, so the usual case is one query.

Of what has an owner, a caller means its own by a name, and by an id what exists for it: no query finds anything else,
nor does a hint at what was meant tell of it. UID/NAME is another's, for who may know it.
"""

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from ingle.api_server.model.caller import ROOT, Caller, Reference
from ingle.api_server.model.errors import InvalidArgument, NotFound, Reason
from ingle.api_server.model.likeness import nearest

_HEX = re.compile(r"[0-9a-f]+")
_OF_OWNER = re.compile(r"(0|[1-9][0-9]{0,9})/(.*)", re.DOTALL)
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
    owned: bool = False

    @property
    def list_command(self) -> str:
        """What shows all of them."""
        return f"ingle {self.noun.lower()} list"


def exact(db: sqlite3.Connection, kind: Kind, reference: Reference) -> sqlite3.Row:
    """The row of the thing with that id or name. Raises NotFound."""
    row = _exact(db, kind, _given(kind, reference))
    if row is None:
        raise _not_found(db, kind, reference, _ids_that_begin(db, kind, reference))
    return row


def found(db: sqlite3.Connection, kind: Kind, reference: Reference) -> sqlite3.Row:
    """The same, or the row of the one thing whose id begins so. Raises NotFound, also AMBIGUOUS_REFERENCE."""
    row = _exact(db, kind, _given(kind, reference))
    if row is not None:
        return row
    ids = _ids_that_begin(db, kind, reference)
    if len(ids) > 1:
        raise NotFound(
            Reason.AMBIGUOUS_REFERENCE,
            f"{reference.text!r} stands for several {kind.noun}s: {', '.join(each[:_SHOWN] for each in ids)}…",
            "use more of the id, or the name",
        )
    row = _exact(db, kind, Reference(reference.caller, ids[0])) if ids else None
    if row is None:
        raise _not_found(db, kind, reference)
    return row


def shared(text: str) -> Reference:
    """To something that has no owner, or that we know by ourselves."""
    return Reference(Caller(ROOT, admin=True), text)


def not_found(kind: Kind, text: str) -> NotFound:
    """Nothing has that id or name."""
    return NotFound(kind.missing, f"no {kind.noun} {text!r}", kind.list_command)


def _given(kind: Kind, reference: Reference) -> Reference:
    if not reference.text:
        raise InvalidArgument(f"no {kind.noun} is named", kind.list_command, field=kind.noun.lower())
    return reference


def _not_found(db: sqlite3.Connection, kind: Kind, reference: Reference, ids: list[str] | None = None) -> NotFound:
    """The same, with a name that it may have been meant for; `ids` begin with it."""
    if not ids:
        meant = _meant(db, kind, reference)
        return NotFound(kind.missing, f"no {kind.noun} {reference.text!r}{meant}", kind.list_command)
    return NotFound(
        kind.missing,
        f"no {kind.noun} {reference.text!r}: what changes one takes its name or its whole id, no part of one",
        kind.list_command,
    )


def _meant(db: sqlite3.Connection, kind: Kind, reference: Reference) -> str:
    text = reference.text
    if len(text) > _LONGEST_TYPED:
        return ""
    of_owner = "WHERE owner = :uid" if kind.owned else ""
    values = {"uid": reference.caller.uid, "said": text}
    names = [row[0] for row in db.execute(f"SELECT name FROM {kind.named} {of_owner} LIMIT {_LOOKED_THROUGH}", values)]
    tagged = [name for name in names if name.startswith(f"{text}:")]
    if kind.owned and reference.caller.admin:
        sql = f"SELECT owner || '/' || name FROM {kind.named} WHERE name = :said ORDER BY owner LIMIT 1"
        tagged = [row[0] for row in db.execute(sql, values)]
    close = tagged[0] if tagged else nearest(text, names)
    return f"; did you mean {close}?" if close else ""


def _exact(db: sqlite3.Connection, kind: Kind, reference: Reference) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(f"{kind.select} {kind.by_id_or_name}", _values(kind, reference)).fetchone()
    return row


def _ids_that_begin(db: sqlite3.Connection, kind: Kind, reference: Reference) -> list[str]:
    """Three at most."""
    values = _values(kind, reference)
    if not _HEX.fullmatch(str(values["said"])):
        return []
    known = "AND (owner = :uid OR :admin)" if kind.owned else ""
    sql = f"SELECT id FROM {kind.table} WHERE id >= :said AND id < :said || 'g' {known} ORDER BY id LIMIT 3"
    return [row[0] for row in db.execute(sql, values)]


def _values(kind: Kind, reference: Reference) -> Mapping[str, object]:
    """What queries take: what is `said`, of the things of `uid`, or by its id of everybody's."""
    caller, text = reference.caller, reference.text
    if kind.owned and (match := _OF_OWNER.fullmatch(text)) and caller.knows(int(match[1])):
        return {"said": match[2], "uid": int(match[1]), "admin": False}
    return {"said": text, "uid": caller.uid, "admin": caller.admin}
