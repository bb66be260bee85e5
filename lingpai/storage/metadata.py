"""The one `MetaData` in which every domain's `tables.py` registers its tables.

The naming convention gives every constraint a name, so that a migration can refer to it and an error explains itself.
Migrations spell these names out: they must not depend on this module, which describes today's tables only.
"""

from typing import Any, Final

from sqlalchemy import Column, Index, MetaData, text

NAMING_CONVENTION: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMING_CONVENTION)


def partial_index(name: str, *columns: str | Column[Any], where: str, is_unique: bool = False) -> Index:
    """An index of the rows for which the SQL in `where` holds.

    Said to SQLite alone, where this release stores: to name `postgresql_where` as well loads that dialect, 1.7 MB and
    20 ms of each start. A release that stores in PostgreSQL says it here.
    """
    return Index(name, *columns, unique=is_unique, sqlite_where=text(where))
