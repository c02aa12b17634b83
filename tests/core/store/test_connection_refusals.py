"""What is said when the settings' database cannot be opened."""

from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from core.errors import AQFError, ConfigurationError, StoreUnavailableError
from core.settings import Settings
from core.store.opening import open_store

SUPABASE = {"supabase_url": "http://127.0.0.1:1", "supabase_key": "sb_secret_x"}


def opened_by(setting: str, conninfo: str, home: Path) -> AQFError:
    """Open a store by a connection string that cannot be used, and return what was said."""
    values: dict[str, Any] = (
        {"database_url": conninfo} if setting == "AQF_DATABASE_URL" else {"supabase_db_url": conninfo, **SUPABASE}
    )
    with pytest.raises(AQFError) as refusal:
        open_store(Settings(home=home, **values))
    return refusal.value


@pytest.mark.parametrize("setting", ["AQF_DATABASE_URL", "SUPABASE_DB_URL"])
@pytest.mark.parametrize(
    "change",
    [{"port": "1", "host": "127.0.0.1"}, {"host": "/nowhere"}, {"dbname": "no_such_database"}, {"user": "nobody_here"}],
    ids=["port", "host", "database", "user"],
)
def test_a_database_out_of_reach_is_said_by_its_setting_and_what_to_check(
    database: str, tmp_path: Path, setting: str, change: dict[str, str]
) -> None:
    error = opened_by(setting, make_conninfo(**(conninfo_to_dict(database) | {"password": "hunter2"} | change)), tmp_path)
    assert isinstance(error, StoreUnavailableError)
    assert str(error).startswith(f"{setting}: the database cannot be reached: ")
    assert "check host, port, user, password and database in it" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("setting", ["AQF_DATABASE_URL", "SUPABASE_DB_URL"])
@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://me:hunter%zz2@127.0.0.1:1/d",
        "postgresql://me:p@hunter2@127.0.0.1:1/d",
        "host=127.0.0.1 password= hunter2 hunter2",
        "hunter2",
        "http://hunter2/d",
    ],
)
def test_what_is_no_connection_string_is_refused_without_a_word_of_it(tmp_path: Path, setting: str, conninfo: str) -> None:
    error = opened_by(setting, conninfo, tmp_path)
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith(f"{setting} must be a connection string such as postgresql://")
    assert "@ as %40" in str(error)
    assert "hunter" not in str(error)


def test_a_password_with_percent_encoded_characters_is_taken(database: str, tmp_path: Path) -> None:
    parts = conninfo_to_dict(database)
    url = f"postgresql://{parts['user']}:p%40ss%25@/{parts['dbname']}?host={parts['host']}&port={parts.get('port', 5432)}"
    with open_store(Settings(home=tmp_path, database_url=url)) as store:
        assert store.service.list_datasets() == []
