"""What metering needs of others. `app.py` passes it in."""

from collections.abc import Collection, Mapping
from typing import Protocol


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

    def find_key(self, text: str, *, user_id: str | None) -> str | None:
        """The id of the key with this id or unique name, or None. With `user_id`, only that user's keys are seen."""
        ...

    def find_client(self, text: str, *, user_id: str | None) -> str | None:
        """The id of the client with this id or unique name, or None. With `user_id`, only that user's clients are seen."""
        ...

    def find_user(self, text: str) -> str | None:
        """The id of the user with this id or name, or None."""
        ...

    def find_project(self, text: str, *, user_id: str | None) -> str | None:
        """The id of the project with this id or name, or None. With `user_id`, only projects that user may see."""
        ...
