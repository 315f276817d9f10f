"""Who calls, and what a caller can mean: a stranger's object does not exist for it."""

from dataclasses import dataclass

from ingle.api_server.model.errors import Conflict, Reason

ROOT = 0
"""Who has what nobody else has."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A user of this host, told by the kernel: there is no other identity. What it makes, it owns.

    An admin is root, a member of the group of admins, or in user mode the one user there is."""

    uid: int
    admin: bool = False

    def knows(self, owner: int) -> bool:
        """Whether what uid `owner` has exists for it."""
        return self.admin or owner == self.uid

    def check_owns(self, owner: int, what: str) -> None:
        """Raise Conflict(NOT_OWNER) unless it may change something that all may use."""
        if not self.knows(owner):
            raise Conflict(
                Reason.NOT_OWNER,
                f"{what} is of uid {owner}: only that user, root and members of the group ingle-admin may change it",
                "use another name, or ask one of them",
            )

    def check_may_empty(self, what: str) -> None:
        """Raise Conflict(NOT_ADMIN) unless it may delete what is everybody's."""
        if not self.admin:
            raise Conflict(
                Reason.NOT_ADMIN,
                f"{what} are everybody's: root and members of the group ingle-admin may delete them",
                "ask one of them",
            )

    def check_all_users(self) -> None:
        """Raise Conflict(NOT_ADMIN) unless lists may tell it of everybody's."""
        if not self.admin:
            raise Conflict(
                Reason.NOT_ADMIN,
                "what all users have is for root and for members of the group ingle-admin to see",
                "ask for your own, without --all-users",
            )


@dataclass(frozen=True, slots=True)
class Reference:
    """What a caller says of one of its objects: a name, an id, or `UID/NAME` of one that is another's.

    Nothing but a store makes an object of it (ports.store); an id that we know by ourselves is a str."""

    caller: Caller
    text: str


def called(owner: int, name: str, caller: Caller) -> str:
    """What that caller has to say to mean what its owner calls so."""
    return name if owner == caller.uid else f"{owner}/{name}"
