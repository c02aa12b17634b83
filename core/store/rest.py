"""SupabaseGateway: the six verbs over supabase-py and PostgREST.

Hides requests, pages, the JSON that Postgres types become, keys and tokens, and the translation of HTTP errors into ours.
Promises what :class:`~core.store.postgres.PostgresGateway` promises: every verb is one transaction (a batch too large for one
request goes to a waiting room first and from there to its table at once), values come back in the same Python types, and a
gateway acts as one role, which the database itself is asked to confirm.

A request is sent again only where that cannot do anything twice: reads, and requests for which no connection came about.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from core.errors import ConfigurationError, StoreConflictError, StoreError, StoreUnavailableError
from core.store.demands import check_condition, conditions, shared_columns
from core.store.gateway import Row, Where
from core.store.json_values import decode_value, encode_value, literal
from core.store.keys import check_key, sign_token
from core.store.spans import traced

if TYPE_CHECKING:
    import httpx
    from supabase import Client

Role = Literal["service_role", "researcher"]

_CONFLICTS = ("23505", "23503", "23001")
_UNREACHABLE = ("08", "28", "3D", "53", "57P", "PGRST0", "PGRST3")
_NO_ROOM = ("53100", "53200", "53400")
_TIMES_OUT = "57014"
_READ_SECONDS = 300.0
_CONNECT_SECONDS = 15.0
_PAGE_ROWS = 1_000
_PAGE_ATTEMPTS = 3
_BATCH_BYTES = 4 * 2**20
_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.2
_TOKEN_SECONDS = 600
_BUSY = (502, 503, 504, 520)


@traced
class SupabaseGateway:
    """Reach a Supabase project over HTTP as one role.

    Parameters
    ----------
    url : str
        Address of the project, such as ``https://abc.supabase.co``.
    key : str
        The service-role key (``sb_secret_...``, or the older JWT).
    role : {"service_role", "researcher"}, default="service_role"
        Role that every request runs as.
    jwt_secret : str, optional
        The project's JWT secret; the token that names `researcher` is signed with it.

    Raises
    ------
    ConfigurationError
        If the address is none, the key belongs to another project, or `researcher` is asked for without `jwt_secret`.
    """

    def __init__(self, url: str, key: str, *, role: Role = "service_role", jwt_secret: str | None = None) -> None:
        if role == "researcher" and jwt_secret is None:
            raise ConfigurationError(
                "the role researcher over HTTP needs the project's JWT secret: set SUPABASE_JWT_SECRET, or SUPABASE_DB_URL."
            )
        check_key(url, key)
        self.url, self.role = url, role
        self._key, self._jwt_secret = key, jwt_secret
        self._names: dict[str, _Name] = {}
        self._lock = threading.Lock()
        self._session: httpx.Client | None = None
        self._client: Client | None = None

    def open(self) -> SupabaseGateway:
        """Ask the project who we are there, so that a wrong address, key or role is an error here and not later.

        Raises
        ------
        StoreUnavailableError
            If the project cannot be reached or refuses the key.
        ConfigurationError
            If it lacks our functions, or lets us act as another role than asked for.
        """
        import httpx
        from supabase import ClientOptions, create_client

        self._session = httpx.Client(
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=8),
            event_hooks={"request": [self._authorise]},
        )
        options = ClientOptions(auto_refresh_token=False, persist_session=False, postgrest_client_retry=False)
        options.httpx_client = self._session  # type: ignore[attr-defined]
        try:
            self._client = create_client(self.url, self._key, options)  # type: ignore[arg-type]
            answer = self._send(lambda client: client.rpc("acting_role").execute(), again=True)
        except BaseException as error:
            self.close()
            if isinstance(error, StoreError) and "acting_role" in str(error):
                raise ConfigurationError(
                    f"{self.url} has no function acting_role, so its schema is not ours or is older: apply supabase/migrations "
                    "with `supabase db push`, or set SUPABASE_DB_URL and run `aqf db migrate`."
                ) from error
            raise
        if answer.data != self.role:
            self.close()
            raise ConfigurationError(
                f"{self.url} lets us act as {answer.data!r} where {self.role!r} was expected: set "
                "SUPABASE_SERVICE_ROLE_KEY to the service-role key, and SUPABASE_JWT_SECRET to the secret of the same project."
            )
        return self

    def close(self) -> None:
        """Close the connections."""
        self._client = None
        if self._session is not None:
            self._session.close()

    def select(
        self,
        table: str,
        *,
        columns: Sequence[str] = ("*",),
        where: Where | None = None,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Read rows; `order` names columns, with a leading ``-`` for descending.

        Notes
        -----
        A project gives at most so many rows at once (1,000 unless configured); more come in pages, ordered by `order` and then
        by the primary key. When rows come or go between two pages, all are read anew.
        """
        name = self._describe(table, (*(columns if tuple(columns) != ("*",) else ()), *(where or {}), *order))
        names = "*" if tuple(columns) == ("*",) else ",".join(map(_quoted, columns))
        keys = [key for key in name.key if key not in {part.lstrip("-") for part in order}]

        def page(client: Client, start: int) -> Any:
            request = _filtered(client.table(table).select(names, count="exact"), where)  # type: ignore[arg-type]
            for part in (*order, *keys):
                request = request.order(_quoted(part.lstrip("-")), desc=part.startswith("-"))
            size = _PAGE_ROWS if limit is None else min(_PAGE_ROWS, limit - start)
            return request.range(start, start + size - 1).execute()

        if limit == 0:
            return []
        for _ in range(_PAGE_ATTEMPTS):
            rows = self._pages(page, limit, may_page=bool(order or keys))
            if rows is not None:
                return [name.decoded_row(row) for row in rows]
        raise StoreError(f"the rows of {table} changed while they were read, {_PAGE_ATTEMPTS} times: narrow the condition.")

    def _pages(self, page: Callable[[Client, int], Any], limit: int | None, *, may_page: bool) -> list[Row] | None:
        """Read all pages; None when the number of rows changed in between."""
        rows: list[Row] = []
        total: int | None = None
        while True:
            answer = self._send(lambda client: page(client, len(rows)), again=True)  # noqa: B023
            if total is not None and answer.count != total:
                return None
            total = answer.count
            rows += answer.data
            wanted = total if limit is None or total is None else min(limit, total)
            if wanted is None or len(rows) >= wanted:
                return rows
            if not answer.data:
                return None
            if not may_page:
                raise StoreError(f"there are {total} rows, more than come at once, and no order to page by: give `order`.")

    def insert(self, table: str, rows: Sequence[Row]) -> list[Row]:
        """Insert rows and return them as stored."""
        if not rows:
            return []
        encoded = _encoded_rows(rows)
        name = self._describe(table, encoded[0])
        answer = self._send(lambda client: client.table(table).insert(encoded, returning="representation").execute())  # type: ignore[arg-type]
        return [name.decoded_row(row) for row in answer.data]

    def upsert(self, table: str, rows: Sequence[Row], *, on_conflict: Sequence[str]) -> int:
        """Insert rows in bulk, replace those that collide on `on_conflict`, and return how many were written."""
        if not rows:
            return 0
        encoded = _encoded_rows(rows)
        self._describe(table, (*encoded[0], *on_conflict))
        parts = _parts(encoded)
        if len(parts) > 1:
            return self._write_batch(table, parts, on_conflict)
        if not on_conflict:
            added = self._send(
                lambda client: client.table(table).insert(encoded, count="exact", returning="minimal").execute()  # type: ignore[arg-type]
            )
            return int(added.count)
        only_keys = set(encoded[0]) <= set(on_conflict)
        answer = self._send(
            lambda client: (
                client.table(table)
                .upsert(
                    encoded,
                    count="exact",  # type: ignore[arg-type]
                    returning="minimal",  # type: ignore[arg-type]
                    ignore_duplicates=only_keys,
                    on_conflict=",".join(map(_quoted, on_conflict)),
                )
                .execute()
            )
        )
        return int(answer.count)

    def _write_batch(self, table: str, parts: list[list[Row]], on_conflict: Sequence[str]) -> int:
        seen: set[str] = set()
        for row in (row for part in parts for row in part):
            key = json.dumps([row[column] for column in on_conflict])
            if on_conflict and key in seen:
                raise StoreError(f"a batch cannot affect row a second time: {key} is in it twice.")
            seen.add(key)
        batch_id = str(uuid.uuid4())
        try:
            for number, part in enumerate(parts):
                row = {"batch_id": batch_id, "part": number, "rows": part}
                self._send(
                    lambda client: (
                        client.table("write_batches")
                        .upsert([row], returning="minimal", ignore_duplicates=True, on_conflict="batch_id,part")  # type: ignore[arg-type]  # noqa: B023
                        .execute()
                    ),
                    again=True,
                )
            arguments = {
                "p_batch_id": batch_id,
                "p_parts": len(parts),
                "p_table": table,
                "p_columns": list(parts[0][0]),
                "p_on_conflict": list(on_conflict) or None,
            }
            return int(self._send(lambda client: client.rpc("write_batch", arguments).execute()).data)
        except StoreError as error:
            if not isinstance(error, StoreUnavailableError):
                with suppress(StoreError):  # what stays behind is removed by a later batch
                    self.delete("write_batches", where={"batch_id": batch_id})
            raise

    def update(self, table: str, values: Row, *, where: Where) -> list[Row]:
        """Change the rows that match and return them."""
        check_condition("update", where)
        name = self._describe(table, (*values, *where))
        encoded = {column: encode_value(value) for column, value in values.items()}
        answer = self._send(lambda client: _filtered(client.table(table).update(encoded), where).execute())
        return [name.decoded_row(row) for row in answer.data]

    def delete(self, table: str, *, where: Where) -> int:
        """Delete the rows that match and return how many there were."""
        check_condition("delete", where)
        self._describe(table, where)
        answer = self._send(
            lambda client: _filtered(client.table(table).delete(count="exact", returning="minimal"), where).execute()  # type: ignore[arg-type]
        )
        return int(answer.count)

    def rpc(self, function: str, **arguments: Any) -> list[Row]:
        """Call a function; a scalar answer is one row with the function's name as its column.

        Raises
        ------
        StoreError
            If the function answers more rows than the project gives at once, and calling it again is not safe.
        """
        name = self._describe(function, kind="function")
        encoded = {key: encode_value(value) for key, value in arguments.items()}

        def call(client: Client, start: int) -> Any:
            request = client.rpc(function, encoded, count="exact" if name.returns_rows else None)  # type: ignore[arg-type]
            if start:
                request.request.params = request.request.params.set("offset", str(start))
            return request.execute()

        answer = self._send(lambda client: call(client, 0), again=name.stable)
        if name.types.get(function) == "void":
            return [{function: None}]
        if not name.returns_rows:
            if list(name.types) != [function] and isinstance(answer.data, dict):
                return [name.decoded_row(answer.data)]
            return [name.decoded_row({function: answer.data})]
        rows = list(answer.data)
        while answer.count is not None and len(rows) < answer.count:
            if not name.stable:
                raise StoreError(
                    f"{function} answered {answer.count} rows, of which the project gave {len(rows)}: raise its limit "
                    "(API settings, Max rows), or ask for fewer."
                )
            start = len(rows)
            answer = self._send(lambda client: call(client, start), again=True)  # noqa: B023
            if not answer.data:
                break
            rows += answer.data
        return [name.decoded_row(row if isinstance(row, dict) else {function: row}) for row in rows]

    def _describe(self, name: str, columns: Iterable[str] = (), *, kind: str = "relation") -> _Name:
        """Ask once which types a table's columns or a function's answer have; refuse what is not there."""
        columns = {column.lstrip("-") for column in columns}
        with self._lock:
            if name not in self._names or not columns <= set(self._names[name].types):
                answer = self._send(lambda client: client.rpc("describe_name", {"p_name": name}).execute(), again=True)
                self._names[name] = _Name.from_rows(answer.data)
            described = self._names[name]
        if not described.types:
            raise StoreError(f'{kind} "{name}" does not exist.')
        for column in sorted(columns - set(described.types)):
            raise StoreError(f'column "{column}" of relation "{name}" does not exist.')
        return described

    def _authorise(self, request: httpx.Request) -> None:
        if self.role == "researcher" and self._jwt_secret is not None:
            request.headers["Authorization"] = f"Bearer {sign_token(self._jwt_secret, self.role, seconds=_TOKEN_SECONDS)}"

    def _send(self, request: Callable[[Client], Any], *, again: bool = False) -> Any:
        """Send a request; `again` says that sending it twice is the same as once."""
        import httpx

        if self._client is None:
            raise StoreUnavailableError(f"the database cannot be reached: the gateway to {self.url} is not open.")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._translated_errors():
                    return request(self._client)
            except StoreUnavailableError as error:
                cause = error.__cause__
                unsent = isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                broken = isinstance(cause, httpx.NetworkError | httpx.RemoteProtocolError) or getattr(cause, "code", "") in map(
                    str, _BUSY
                )
                if attempt == _ATTEMPTS or not (unsent or (again and broken)):
                    raise
                time.sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        import httpx
        from postgrest.exceptions import APIError

        try:
            yield
        except APIError as error:
            raise self._refusal(error) from error
        except httpx.TimeoutException as error:
            raise StoreUnavailableError(
                f"the database cannot be reached: {self.url} did not answer in time; whether a change was made is not known."
            ) from error
        except httpx.HTTPError as error:
            raise StoreUnavailableError(
                f"the database cannot be reached: {self.url}: {error or type(error).__name__}"
            ) from error

    def _refusal(self, error: Any) -> StoreError:
        code = str(error.code or "")
        text = str(error.message or "the project gave no reason") + (f" ({error.details})" if error.details else "")
        if code in _CONFLICTS or (code == "409" and "duplicate" in text):
            return StoreConflictError(text)
        if code in _NO_ROOM:
            return StoreUnavailableError(f"the database has no room left: {text}; free disk space and run the command again.")
        if code == "PGRST303" or "JWT expired" in text:
            return StoreUnavailableError(
                f"the database cannot be reached: {self.url} says that the token has expired ({text}): set a valid "
                f"{self._credential}, and check this machine's clock."
            )
        refused = code in ("401", "") and ("key" in text.lower() or "unauthorized" in text.lower())
        if refused or code.startswith(("PGRST301", "PGRST302")):
            return StoreUnavailableError(
                f"the database cannot be reached: {self.url} refuses {self._credential} ({text}): take the one of this project."
            )
        if code != _TIMES_OUT and (code.startswith(_UNREACHABLE) or code in map(str, (401, *_BUSY))):
            return StoreUnavailableError(f"the database cannot be reached: {text}")
        return StoreError(text)

    @property
    def _credential(self) -> str:
        return (
            "SUPABASE_SERVICE_ROLE_KEY" if self.role == "service_role" else "SUPABASE_JWT_SECRET or SUPABASE_SERVICE_ROLE_KEY"
        )


@dataclass(frozen=True, kw_only=True)
class _Name:
    """What the database says about a table, a view or a function."""

    types: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    returns_rows: bool = False
    stable: bool = False

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, str]]) -> _Name:
        return cls(
            types={row["name"]: row["type"] for row in rows if row["kind"] in ("column", "result")},
            key=tuple(row["name"] for row in rows if row["kind"] == "key"),
            returns_rows=any(row["kind"] == "rows" for row in rows),
            stable=any(row["kind"] == "stable" for row in rows),
        )

    def decoded_row(self, row: Mapping[str, Any]) -> Row:
        return {column: decode_value(value, self.types.get(column, "")) for column, value in row.items()}


def _encoded_rows(rows: Sequence[Row]) -> list[Row]:
    columns = shared_columns(rows)
    return [{column: encode_value(row[column]) for column in columns} for row in rows]


def _parts(rows: list[Row]) -> list[list[Row]]:
    """Cut rows into parts of one request each; their size is taken from a few of them."""
    sample = rows[:: max(1, len(rows) // 16)]
    size = sum(len(json.dumps(row, default=str)) for row in sample) / len(sample)
    step = max(1, int(_BATCH_BYTES / size))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def _quoted(name: str) -> str:
    if name.replace("_", "a").isalnum() and name.isascii():
        return name
    return '"' + name.replace('"', '""') + '"'


def _filtered(request: Any, where: Where | None) -> Any:
    for column, operator, value in conditions(where):
        if operator == "in":
            items = ",".join('"' + literal(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in value)
            request = request.filter(column, "in", f"({items})")
        elif operator == "is":
            request = request.filter(column, "is", "null" if value is None else "true" if value else "false")
        else:
            request = request.filter(column, operator, literal(value))
    return request
