"""Which access tokens there are: the ids of those that live, so that garbage needs no look-up.

As `known_ids`, but tokens come and go: the table is made anew now and then, from those that are still there.
"""

from lingpai.identity.known_ids import IdSource, KnownIds, fill_in_background


class TokenIds:
    """The ids of access tokens. Belongs to the event loop's thread; only the reading is done in another one."""

    def __init__(self) -> None:
        self._is_read = False
        self._current = KnownIds()
        self._next: KnownIds | None = None

    def is_known(self, id_: bytes) -> bool:
        """Whether there is, or was lately, a token with this id. All count as known until the first reading is done."""
        return self._current.is_known(id_)

    def add(self, key_id: str) -> None:
        """A token was given out."""
        self._current.add(key_id)
        if self._next is not None:
            self._next.add(key_id)

    def renew(self, source: IdSource) -> None:
        """Begin to read the ids that there are now; the next call puts them in the place of the present ones.

        Call it at start, and then now and then: the ids of tokens that have expired go two calls later.
        """
        if not self._is_read:
            self._is_read = True
            fill_in_background(self._current, source)
        elif self._next is None:
            self._next = KnownIds()
            fill_in_background(self._next, source)
        elif self._next.is_filled:
            self._current, self._next = self._next, None
