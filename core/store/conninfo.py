"""Connection strings as people write them: what is wrong with one is said by the name of its setting, never by its password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from core.errors import ConfigurationError, StoreUnavailableError


@contextmanager
def blaming(setting: str, conninfo: str) -> Iterator[None]:
    """Name a setting in what goes wrong when its connection string is used.

    Raises
    ------
    ConfigurationError
        If it is no connection string. Postgres's own words are left out then: they quote what they could not read, which may be
        a piece of the password.
    StoreUnavailableError
        If the database cannot be reached by it.
    """
    try:
        readable = "@" not in str(conninfo_to_dict(conninfo).get("host", ""))
    except psycopg.ProgrammingError:
        readable = False
    if not readable:
        raise ConfigurationError(
            f"{setting} must be a connection string such as postgresql://user:password@host:5432/database, and could not be "
            "read as one: write special characters of the password percent-encoded, @ as %40 and % as %25."
        )
    try:
        yield
    except StoreUnavailableError as error:
        raise StoreUnavailableError(
            f"{setting}: {error}; check host, port, user, password and database in it, and that the server runs."
        ) from error
