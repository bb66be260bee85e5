"""Who may do what: the roles of a project, and what each allows. The only place that says so.

There are two kinds of roles. A user's role holds for the whole server: administrators see and do everything, everybody
else only what a role in a project gives them. A project's roles contain each other: a *viewer* sees, a *member* also
makes keys of their own, an *admin* also looks after everybody's keys, the members and the project itself. What holds for keys holds for OAuth clients.

A key acts for its owner, so nobody but its owner gets a secret of it or gives it rights: an admin of a project who could
do either would reach what its owner can see elsewhere. What an admin does to others' keys only ever takes away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

ProjectRole = Literal["admin", "member", "viewer"]
PROJECT_ROLES: Final[tuple[ProjectRole, ...]] = ("viewer", "member", "admin")
"""From the one that allows least to the one that allows most."""


class ProjectAction(StrEnum):
    """What can be done with a project. Values complete “Only … may …”."""

    SEE = "see it"
    SEE_MEMBERS = "see its members"
    SEE_KEYS = "see everybody's keys in it"
    SEE_USAGE = "see everybody's usage in it"
    LEAVE = "leave it"
    MAKE_KEYS = "make keys in it"
    CHANGE = "rename it or add limits to it"
    CHANGE_MEMBERS = "change its members"
    DELETE = "delete it"
    SET_LIMITS = "lift its limits"


class KeyAction(StrEnum):
    """What can be done with a key or a client. Values complete “Only … may …”."""

    SEE = "see it"
    SWITCH_OFF = "disable or delete it"
    NARROW = "rename it, add limits or take rights away"
    WIDEN = "give it more rights"
    ROTATE = "give it a new secret"
    SET_LIMITS = "lift its limits"
    ENABLE = "enable it again"


_VIEWER: Final = frozenset(
    {
        ProjectAction.SEE,
        ProjectAction.SEE_MEMBERS,
        ProjectAction.SEE_KEYS,
        ProjectAction.SEE_USAGE,
        ProjectAction.LEAVE,
    }
)
_MEMBER: Final = _VIEWER | {ProjectAction.MAKE_KEYS}
_ADMIN: Final = _MEMBER | {
    ProjectAction.CHANGE,
    ProjectAction.CHANGE_MEMBERS,
    ProjectAction.DELETE,
}
PROJECT_RIGHTS: Final[Mapping[ProjectRole | None, frozenset[ProjectAction]]] = {
    None: frozenset(),
    "viewer": _VIEWER,
    "member": _MEMBER,
    "admin": _ADMIN,
}
"""What a role in a project allows; None is no role. Lifting limits is left to the server's administrators."""

# Whoever lost the role still sees what is theirs, and can put an end to it.
_KEPT: Final = frozenset({KeyAction.SEE, KeyAction.SWITCH_OFF})
_OWNED: Final = _KEPT | {KeyAction.NARROW, KeyAction.WIDEN, KeyAction.ROTATE}
OWN_KEY_RIGHTS: Final[Mapping[ProjectRole | None, frozenset[KeyAction]]] = {
    None: _KEPT,
    "viewer": _KEPT,
    "member": _OWNED,
    "admin": _OWNED,
}
"""What the owner of a key or client may do with it, by their role in its project."""

_SEEN: Final = frozenset({KeyAction.SEE})
OTHERS_KEY_RIGHTS: Final[Mapping[ProjectRole | None, frozenset[KeyAction]]] = {
    None: frozenset(),
    "viewer": _SEEN,
    "member": _SEEN,
    "admin": frozenset({KeyAction.SEE, KeyAction.SWITCH_OFF, KeyAction.NARROW}),
}
"""What somebody with this role in the project of a key or client may do with it, when it is somebody else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a caller stands to a project: as an administrator of the server, and with which role in the project."""

    is_administrator: bool
    role: ProjectRole | None

    def may(self, action: ProjectAction) -> bool:
        """Whether the caller may do this with the project."""
        return self.is_administrator or action in PROJECT_RIGHTS[self.role]

    def may_with_key(self, action: KeyAction, *, is_own: bool) -> bool:
        """Whether the caller may do this with a key or client of the project, which is theirs or somebody else's."""
        rights = OWN_KEY_RIGHTS if is_own else OTHERS_KEY_RIGHTS
        return self.is_administrator or action in rights[self.role]


def has_keys(role: ProjectRole | None) -> bool:
    """Whether the keys and clients of somebody with this role in a project work; those of the server's administrators do."""
    return ProjectAction.MAKE_KEYS in PROJECT_RIGHTS[role]


ROLES_WITH_KEYS: Final = tuple(role for role in PROJECT_ROLES if has_keys(role))
"""For SQL: the roles for which `has_keys` holds."""
