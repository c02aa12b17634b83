"""PostgresGateway: the six verbs over psycopg 3.

Hides connections, identifiers, the binary COPY and the translation of Postgres errors into ours. Each gateway acts as
one role; row-level security and grants of that role apply to everything it does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb, JsonbDumper
from psycopg_pool import ConnectionPool, PoolTimeout

from core.errors import StoreConflictError, StoreError, StoreUnavailableError
from core.store.demands import check_condition, conditions, in_utc, shared_columns
from core.store.gateway import Row, Where
from core.store.packing import UnpackableError, check_integers, pack_rows
from core.store.spans import traced

_SQL_OPERATORS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_UNREACHABLE = ("08", "28", "3D", "53", "57P")
_CONNECT_SECONDS = 15.0
_MAX_PARAMETERS = 65_535
_STATEMENT_MILLISECONDS = 300_000


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn what psycopg raises into the framework's error tree."""
    try:
        yield
    except (psycopg.errors.UniqueViolation, psycopg.errors.RestrictViolation, psycopg.errors.ForeignKeyViolation) as error:
        raise StoreConflictError(_text(error)) from error
    except (psycopg.errors.DiskFull, psycopg.errors.InsufficientResources) as error:
        raise StoreUnavailableError(
            f"the database has no room left: {_text(error)}; free disk space and run the command again."
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        # Postgres counts time-outs, deadlocks and limits among these too; then it was reached and said no.
        if error.sqlstate is not None and not error.sqlstate.startswith(_UNREACHABLE):
            raise StoreError(_text(error)) from error
        raise StoreUnavailableError(f"the database cannot be reached: {_text(error)}") from error
    except psycopg.Error as error:
        raise StoreError(_text(error)) from error


def _text(error: Exception) -> str:
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        detail = error.diag.message_detail
        return error.diag.message_primary + (f" ({detail})" if detail else "")
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@traced
class PostgresGateway:
    """Reach Postgres as one role.

    Parameters
    ----------
    conninfo : str
        A libpq connection string or URL.
    role : str, optional
        Role that every statement runs as; the session may not be more than this. None keeps the connecting user.
    max_connections : int, default=6
        Upper bound of the pool; connections are opened when needed.
    """

    def __init__(self, conninfo: str, *, role: str | None = None, max_connections: int = 6) -> None:
        with translated_errors():
            self.conninfo = make_conninfo(conninfo, application_name="aqf", connect_timeout=int(_CONNECT_SECONDS))
        self.role = role
        self._pool = ConnectionPool(
            self.conninfo,
            min_size=0,
            max_size=max_connections,
            timeout=_CONNECT_SECONDS,
            reconnect_timeout=_CONNECT_SECONDS,
            open=False,
            kwargs={"autocommit": True, "row_factory": dict_row},
            configure=self._configure,
            name=f"aqf-{role}",
        )
        self._types: dict[str, dict[str, tuple[int, str]]] = {}
        self._types_lock = threading.Lock()
        self._opened = False

    def open(self) -> PostgresGateway:
        """Connect once, so that an unreachable database is an error here and not later."""
        with translated_errors():
            with psycopg.connect(self.conninfo, autocommit=True) as connection:
                self._configure(connection)
            self._pool.open()
            self._opened = True
        return self

    def close(self) -> None:
        """Close every connection."""
        if self._opened:
            self._pool.close()

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        """Prepare a session by statements: connection poolers refuse the same as start-up options."""
        connection.execute("set search_path to public, extensions")
        connection.execute("set timezone to 'UTC'")
        connection.execute(f"set statement_timeout to {_STATEMENT_MILLISECONDS}")
        if self.role is not None:
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(self.role)))
        register_vector(connection)
        connection.adapters.register_dumper(dict, JsonbDumper)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Row]]:
        """Lend a connection in autocommit mode; errors are translated."""
        with translated_errors(), self._pool.connection() as connection:
            yield connection

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
        names = sql.SQL("*") if tuple(columns) == ("*",) else _names(columns)
        condition, parameters = _condition(where)
        query = sql.SQL("select {} from {}{}").format(names, sql.Identifier(table), condition)
        if order:
            keys = [
                sql.SQL("{} {}").format(sql.Identifier(key.lstrip("-")), sql.SQL("desc" if key.startswith("-") else "asc"))
                for key in order
            ]
            query += sql.SQL(" order by ") + sql.SQL(", ").join(keys)
        if limit is not None:
            query += sql.SQL(" limit {}").format(sql.Literal(limit))
        with self.connection() as connection:
            return connection.execute(query, parameters).fetchall()

    def insert(self, table: str, rows: Sequence[Row]) -> list[Row]:
        """Insert rows and return them as stored."""
        if not rows:
            return []
        columns = shared_columns(rows)
        line = sql.SQL("({})").format(sql.SQL(", ").join([sql.Placeholder()] * len(columns)))
        step = max(1, _MAX_PARAMETERS // len(columns))
        stored: list[Row] = []
        with self.connection() as connection, connection.transaction() if len(rows) > step else nullcontext():
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                query = sql.SQL("insert into {} ({}) values {} returning *").format(
                    sql.Identifier(table), _names(columns), sql.SQL(", ").join([line] * len(part))
                )
                stored += connection.execute(query, [in_utc(row[column]) for row in part for column in columns]).fetchall()
        return stored

    def upsert(self, table: str, rows: Sequence[Row], *, on_conflict: Sequence[str]) -> int:
        """Copy rows into a temporary table, merge them, and return how many were written.

        Without `on_conflict` they are copied into the table itself.
        """
        if not rows:
            return 0
        columns = shared_columns(rows)
        if not on_conflict:
            with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
                self._copy(cursor, table, sql.Identifier(table), rows)
                return cursor.rowcount
        changed = [column for column in columns if column not in on_conflict]
        action: sql.Composable = sql.SQL("nothing")
        if changed:
            sets = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column)) for column in changed)
            action = sql.SQL("update set {}").format(sets)
        with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute(
                sql.SQL("create temporary table incoming on commit drop as select {} from {} with no data").format(
                    _names(columns), sql.Identifier(table)
                )
            )
            self._copy(cursor, table, sql.Identifier("incoming"), rows)
            cursor.execute(
                sql.SQL("insert into {} ({}) select {} from incoming on conflict ({}) do {}").format(
                    sql.Identifier(table), _names(columns), _names(columns), _names(on_conflict), action
                )
            )
            return cursor.rowcount

    def _copy(self, cursor: psycopg.Cursor[Row], table: str, target: sql.Identifier, rows: Sequence[Row]) -> None:
        columns = list(rows[0])
        types = self._column_types(table)
        for column in columns:
            if types and column not in types:
                raise StoreError(f'column "{column}" of relation "{table}" does not exist.')
        names = [types[column][1] for column in columns]
        check_integers(rows, columns, names)
        statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(target, _names(columns))
        try:
            with cursor.connection.transaction(), cursor.copy(statement) as copy:
                for block in pack_rows(rows, columns, names):
                    copy.write(block)
            return
        except UnpackableError:
            pass  # the savepoint is undone, and psycopg sends all of it or says what is wrong
        with cursor.copy(statement) as copy:
            copy.set_types([types[column][0] for column in columns])
            for row in rows:
                copy.write_row([in_utc(row[column]) for column in columns])

    def update(self, table: str, values: Row, *, where: Where) -> list[Row]:
        """Change the rows that match and return them."""
        condition, parameters = _needed_condition("update", where)
        sets = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder()) for column in values)
        query = sql.SQL("update {} set {}{} returning *").format(sql.Identifier(table), sets, condition)
        with self.connection() as connection:
            return connection.execute(query, [*(in_utc(value) for value in values.values()), *parameters]).fetchall()

    def delete(self, table: str, *, where: Where) -> int:
        """Delete the rows that match and return how many there were."""
        condition, parameters = _needed_condition("delete", where)
        with self.connection() as connection:
            return connection.execute(sql.SQL("delete from {}{}").format(sql.Identifier(table), condition), parameters).rowcount

    def rpc(self, function: str, **arguments: Any) -> list[Row]:
        """Call a function; a scalar answer is one row with the function's name as its column."""
        names = sql.SQL(", ").join(sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder()) for name in arguments)
        query = sql.SQL("select * from {}({})").format(sql.Identifier(function), names)
        with self.connection() as connection:
            return connection.execute(query, [in_utc(value) for value in arguments.values()]).fetchall()

    def _column_types(self, table: str) -> dict[str, tuple[int, str]]:
        """Return the type each column is copied as, by object id and name; an enumeration is copied as the text it is."""
        with self._types_lock:
            if table not in self._types:
                query = (
                    "select a.attname as name, case when t.typtype = 'e' then 'text'::regtype::oid else t.oid end as type, "
                    "case when t.typtype = 'e' then 'text' else t.typname::text end as type_name "
                    "from pg_catalog.pg_attribute a "
                    "join pg_catalog.pg_type t on t.oid = a.atttypid "
                    "where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped"
                )
                with self.connection() as connection:
                    rows = connection.execute(query, [f'public."{table}"']).fetchall()
                self._types[table] = {row["name"]: (row["type"], row["type_name"]) for row in rows}
            return self._types[table]


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(column) for column in columns)


def _condition(where: Where | None) -> tuple[sql.Composable, list[Any]]:
    if not where:
        return sql.SQL(""), []
    parts: list[sql.Composable] = []
    parameters: list[Any] = []
    for column, operator, value in conditions(where):
        name = sql.Identifier(column)
        if operator == "in":
            items = list(value)
            choice = sql.SQL("{} in ({})").format(name, sql.SQL(", ").join([sql.Placeholder()] * len(items)))
            parts.append(choice if items else sql.SQL("false"))
            parameters += [in_utc(item) for item in items]
        elif operator == "is":
            parts.append(sql.SQL("{} is {}").format(name, sql.SQL("null" if value is None else "true" if value else "false")))
        else:
            parts.append(sql.SQL("{} {} {}").format(name, sql.SQL(_SQL_OPERATORS[operator]), sql.Placeholder()))
            parameters.append(in_utc(value))
    return sql.SQL(" where ") + sql.SQL(" and ").join(parts), parameters


def _needed_condition(verb: str, where: Where) -> tuple[sql.Composable, list[Any]]:
    check_condition(verb, where)
    return _condition(where)


def as_jsonb(value: Any) -> Jsonb:
    """Mark a list as JSON, where a plain list would be sent as an array."""
    return Jsonb(value)
