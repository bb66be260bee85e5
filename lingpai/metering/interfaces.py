"""What metering needs of others. `app.py` passes it in."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Visible:
    """What somebody who does not see everything sees: their own calls, and everybody's in these projects."""

    user_id: str
    project_ids: tuple[str, ...]


class UsageNames(Protocol):
    """Names for the identifiers in usage records. Both directions include what has been deleted since.

    All methods block and are called in a thread.
    """

    def key_names(self, key_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these keys; unknown ids are left out."""
        ...

    def client_names(self, client_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these clients (`cl-lp-…`); unknown ids are left out."""
        ...

    def user_names(self, user_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these users; unknown ids are left out."""
        ...

    def project_names(self, project_ids: Collection[str]) -> Mapping[str, str]:
        """The names of these projects; unknown ids are left out."""
        ...

    def find_key(self, text: str, *, owner: str | None, seen_by: str | None) -> str | None:
        """The id of the key with this id or unique name, or None. With `owner` only that user's; `seen_by` as below."""
        ...

    def find_client(self, text: str, *, owner: str | None, seen_by: str | None) -> str | None:
        """The id of the client with this id or unique name, or None. With `owner` only that user's; `seen_by` as below."""
        ...

    def find_user(self, text: str, *, seen_by: str | None) -> str | None:
        """The id of the user with this id or name, or None. With `seen_by` (a user's id) only whom that user may see."""
        ...

    def find_project(self, text: str, *, seen_by: str | None) -> str | None:
        """The id of the project with this id or name, or None; `seen_by` as above."""
        ...

    def shared_projects(self, user_id: str) -> tuple[str, ...]:
        """The ids of the projects in which a user sees everybody's usage; without their own personal one."""
        ...
