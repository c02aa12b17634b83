"""The Gateway: the whole database behind the six verbs of PostgREST.

A gateway moves rows and calls functions; it decides nothing. Logic that must be the same everywhere lives in SQL
functions, reached by :meth:`Gateway.rpc`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

Row = dict[str, Any]
Where = Mapping[str, Any]
"""Conditions, all of which must hold: ``{"name": "x"}`` is equality, ``{"ts": ("lt", value)}`` names the operator
(eq, neq, lt, lte, gt, gte, in, is)."""

OPERATORS = ("eq", "neq", "lt", "lte", "gt", "gte", "in", "is")


@runtime_checkable
class Gateway(Protocol):
    """Move rows between the framework and one database.

    Every verb is one transaction: either all of it happens or nothing.

    Raises
    ------
    StoreUnavailableError
        The database cannot be reached.
    StoreConflictError
        A row is there already, or may not be changed.
    StoreError
        The database refused for another reason; the text is the database's own.
    """

    def select(
        self,
        table: str,
        *,
        columns: Sequence[str] = ("*",),
        where: Where | None = None,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Read rows; `order` names columns, with a leading ``-`` for descending."""
        ...

    def insert(self, table: str, rows: Sequence[Row]) -> list[Row]:
        """Insert rows and return them as stored."""
        ...

    def upsert(self, table: str, rows: Sequence[Row], *, on_conflict: Sequence[str]) -> int:
        """Insert rows in bulk, replace those that collide on `on_conflict`, and return how many were written.

        With an empty `on_conflict` rows are only added, and one that collides is a StoreConflictError.
        """
        ...

    def update(self, table: str, values: Row, *, where: Where) -> list[Row]:
        """Change the rows that match and return them."""
        ...

    def delete(self, table: str, *, where: Where) -> int:
        """Delete the rows that match and return how many there were."""
        ...

    def rpc(self, function: str, **arguments: Any) -> list[Row]:
        """Call a function; a scalar answer is one row with the function's name as its column."""
        ...
