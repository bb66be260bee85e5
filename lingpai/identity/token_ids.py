"""Which access tokens there are: the ids of those that live, so that garbage needs no look-up.

As `known_ids`, but tokens come and go: the table is made anew now and then, from those that are still there.
"""

from threading import Thread

from lingpai.identity.known_ids import IdSource, KnownIds, fill_in_background


class TokenIds:
    """The ids of access tokens. Belongs to the event loop's thread; only the reading is done in another one."""

    def __init__(self) -> None:
        self._current = KnownIds()
        self._next: KnownIds | None = None
        self._reader: Thread | None = None

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

        Call it at start, and then now and then: the ids of tokens that have expired go two calls later. A reading that
        failed is begun again.
        """
        if self._reader is not None and self._reader.is_alive():
            return
        if self._next is not None and self._next.is_filled:
            self._current, self._next = self._next, None
            return
        if self._current.is_filled:
            self._next = (
                KnownIds()
            )  # also in the place of one that could not be read: the ids are in the database
        self._reader = fill_in_background(self._next or self._current, source)
