"""Whether a client works, for those who read its tokens: it stops with its owner's role in its project, as keys do."""

from typing import Any, Final

from sqlalchemy import Select, and_, func, or_

from lingpai.identity.oauth.tables import clients
from lingpai.identity.roles import ROLES_WITH_KEYS
from lingpai.identity.tables import project_members, users

_owners = users.alias("client_owners")
_roles = project_members.alias("client_owner_roles")

_IS_ROLE_MISSING: Final = and_(
    _owners.c.role != "admin", func.coalesce(_roles.c.role, "none").not_in(ROLES_WITH_KEYS)
)
CLIENT_IS_OFF: Final = or_(
    clients.c.disabled_at.is_not(None),
    clients.c.deleted_at.is_not(None),
    _owners.c.disabled_at.is_not(None),
    _IS_ROLE_MISSING,
).label("client_is_off")
"""NULL where there is no client. For queries that `with_client_owner` has joined."""


def with_client_owner(query: Select[Any]) -> Select[Any]:
    """A query with `clients` in it, joined with their owners and the owners' roles in their projects."""
    has_role = and_(_roles.c.project_id == clients.c.project_id, _roles.c.user_id == clients.c.user_id)
    return query.outerjoin(_owners, _owners.c.id == clients.c.user_id).outerjoin(_roles, has_role)
