"""Where the database keeps sealed values, so that all of them can be counted and sealed anew."""

from dataclasses import dataclass

from sqlalchemy import Column, Connection, LargeBinary, Table, func, select, update

from lingpai.storage.sealing import FORMAT, HEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedColumn:
    """A column of sealed values; the context that each is sealed for is its row's id."""

    table: Table
    id_column: str
    column: str
    purpose: str
    what: str
    """For people, in the plural: `provider keys`."""

    def count(self, connection: Connection, now: float) -> dict[int, int]:  # noqa: ARG002  all kinds of uses are asked alike
        """How many values each version of the root key has sealed."""
        head = func.substr(self._sealed, 1, HEAD.size, type_=LargeBinary)
        query = select(head, func.count()).where(self._sealed.is_not(None)).group_by(head)
        counted: dict[int, int] = {}
        for begin, rows in connection.execute(query):
            format_, version = HEAD.unpack(begin) if begin and len(begin) == HEAD.size else (0, 0)
            key = int(version) if format_ == FORMAT else 0
            counted[key] = counted.get(key, 0) + int(rows)
        return counted

    def sealed_before(
        self, connection: Connection, version: int, *, after: str, limit: int
    ) -> list[tuple[str, bytes]]:
        """Up to `limit` rows, id and sealed value, that versions before `version` have sealed; by id, from `after` on."""
        head = HEAD.pack(FORMAT, version)
        query = (
            select(self._id, self._sealed)
            .where(
                self._sealed.is_not(None),
                # Big-endian, so they compare as numbers do. What a newer version has sealed stays as it is: another
                # server uses that version already.
                func.substr(self._sealed, 1, len(head), type_=LargeBinary) < head,
                self._id > after,
            )
            .order_by(self._id)
            .limit(limit)
        )
        return [(str(id_), bytes(sealed)) for id_, sealed in connection.execute(query)]

    def replace(self, connection: Connection, id_: str, old: bytes, new: bytes) -> None:
        """Put `new` in the place of `old`; nothing happens when something else is there by now."""
        connection.execute(
            update(self.table).where(self._id == id_, self._sealed == old).values({self.column: new})
        )

    @property
    def _id(self) -> Column[str]:
        return self.table.c[self.id_column]

    @property
    def _sealed(self) -> Column[bytes]:
        return self.table.c[self.column]
