from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigurationError
from core.settings import (
    CUTOFFS_AS_OF,
    DEFAULT_CUTOFFS,
    DEFAULT_PRICES,
    EmbedderKind,
    ModelPrice,
    Settings,
    StoreKind,
    default_home,
)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("AQF_HOME")
    return monkeypatch


@pytest.fixture
def dotenv(bare: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `.env` that is read because the process stands beside it."""
    bare.setitem(Settings.model_config, "env_file", ".env")
    bare.chdir(tmp_path)
    return tmp_path / ".env"


def test_without_any_variable_the_embedded_database_is_chosen(bare: pytest.MonkeyPatch) -> None:
    settings = Settings.load()
    assert settings.store_kind is StoreKind.EMBEDDED
    assert settings.home == default_home()
    assert (settings.has_model, settings.keep_server, settings.llm_model) == (False, False, "gpt-5-mini")


def test_the_home_of_a_checkout_lies_in_the_checkout() -> None:
    assert default_home() == Path(__file__).resolve().parents[2] / ".aqf"


def test_the_home_of_an_installation_lies_in_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("core.settings.CHECKOUT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert default_home() == tmp_path / "me" / ".aqf"


def test_variables_of_other_programs_are_not_read(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("HOME", str(tmp_path))
    bare.setenv("DATABASE_URL", "postgresql://somebody/else")
    bare.setenv("KEEP_SERVER", "true")
    bare.setenv("LLM_MODEL", "other")
    settings = Settings.load()
    assert settings.home == default_home()
    assert (settings.store_kind, settings.keep_server, settings.llm_model) == (StoreKind.EMBEDDED, False, "gpt-5-mini")


def test_a_relative_home_becomes_absolute(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.chdir(tmp_path)
    bare.setenv("AQF_HOME", "somewhere/else")
    assert Settings.load().home == tmp_path / "somewhere" / "else"


def test_a_tilde_in_the_home_is_the_users_home(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("HOME", str(tmp_path))
    bare.setenv("AQF_HOME", "~/research")
    assert Settings.load().home == tmp_path / "research"


def test_an_empty_home_is_an_absent_one_and_not_the_working_directory(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AQF_HOME", "")
    assert Settings.load().home == default_home()


def test_the_home_of_an_unknown_user_is_refused(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AQF_HOME", "~nobody-of-that-name/x")
    with pytest.raises(ConfigurationError, match=r"AQF_HOME: ~nobody-of-that-name/x names a user that does not exist"):
        Settings.load()


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"AQF_DATABASE_URL": "postgresql://h/d"}, StoreKind.DATABASE_URL),
        ({"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "k"}, StoreKind.SUPABASE),
        (
            {"AQF_DATABASE_URL": "postgresql://h/d", "SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "k"},
            StoreKind.DATABASE_URL,
        ),
        ({"AQF_DATABASE_URL": " ", "SUPABASE_URL": "", "SUPABASE_SERVICE_ROLE_KEY": "  "}, StoreKind.EMBEDDED),
    ],
)
def test_the_variables_choose_the_store(bare: pytest.MonkeyPatch, variables: dict[str, str], kind: StoreKind) -> None:
    for name, value in variables.items():
        bare.setenv(name, value)
    assert Settings.load().store_kind is kind


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"AQF_STORE": "sqlite"}, StoreKind.SQLITE),
        ({"AQF_STORE": "auto"}, StoreKind.EMBEDDED),
        ({"AQF_STORE": ""}, StoreKind.EMBEDDED),
        ({"AQF_STORE": "auto", "AQF_DATABASE_URL": "postgresql://h/d"}, StoreKind.DATABASE_URL),
        ({"AQF_STORE": "sqlite", "AQF_DATABASE_URL": " "}, StoreKind.SQLITE),
    ],
)
def test_files_are_chosen_only_where_they_are_asked_for(
    bare: pytest.MonkeyPatch, variables: dict[str, str], kind: StoreKind
) -> None:
    for name, value in variables.items():
        bare.setenv(name, value)
    assert Settings.load().store_kind is kind


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"AQF_DATABASE_URL": "postgresql://h/d"}, "AQF_DATABASE_URL"),
        ({"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "k"}, "SUPABASE_URL"),
    ],
)
def test_files_and_a_database_at_once_are_an_error(bare: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    bare.setenv("AQF_STORE", "sqlite")
    for name, value in variables.items():
        bare.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"AQF_STORE is sqlite but {named} names a database: take one of them away"):
        Settings.load()


def test_a_store_that_does_not_exist_is_refused(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AQF_STORE", "mongo")
    with pytest.raises(ConfigurationError, match="AQF_STORE: Input should be 'auto' or 'sqlite'"):
        Settings.load()


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, EmbedderKind.HASHED),
        ({"OPENAI_API_KEY": "k"}, EmbedderKind.OPENAI),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, EmbedderKind.HASHED),
        ({"OPENAI_API_KEY": "k", "AQF_TEXT_EMBEDDER": "hashed"}, EmbedderKind.HASHED),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "AQF_TEXT_EMBEDDER": "openai"}, EmbedderKind.OPENAI),
    ],
)
def test_the_text_embedder_is_the_one_asked_for_or_openais_where_there_is_a_key(
    bare: pytest.MonkeyPatch, variables: dict[str, str], kind: EmbedderKind
) -> None:
    for name, value in variables.items():
        bare.setenv(name, value)
    assert Settings.load().embedder_kind is kind


def test_openais_embedder_without_a_model_is_an_error(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AQF_TEXT_EMBEDDER", "openai")
    with pytest.raises(ConfigurationError, match="AQF_TEXT_EMBEDDER is openai but neither OPENAI_API_KEY nor OPENAI_BASE_URL"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "missing"),
    [("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY"), ("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_URL")],
)
def test_half_of_supabase_is_an_error_that_names_the_other_half(bare: pytest.MonkeyPatch, name: str, missing: str) -> None:
    bare.setenv(name, "value")
    with pytest.raises(ConfigurationError, match=f"{name} is set but {missing} is not: set both, or neither"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"),
        ("APCA_API_SECRET_KEY", "APCA_API_KEY_ID"),
        ("AQF_TELEGRAM_TOKEN", "AQF_TELEGRAM_CHAT_ID"),
        ("AQF_TELEGRAM_CHAT_ID", "AQF_TELEGRAM_TOKEN"),
    ],
)
def test_half_of_alpacas_keys_or_of_telegram_is_an_error_that_names_the_rest(
    bare: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    bare.setenv(name, "hunter2")
    bare.setenv(missing, " ")
    with pytest.raises(ConfigurationError, match=f"{name} is set but {missing} is not: set both, or neither") as refusal:
        Settings.load()
    assert "hunter2" not in str(refusal.value)


def test_alpacas_keys_are_read_by_alpacas_names_and_stay_secret(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY are not set: "):
        Settings.load().require_alpaca_keys()
    bare.setenv("APCA_API_KEY_ID", "hunter2")
    bare.setenv("APCA_API_SECRET_KEY", "hunter3")
    settings = Settings.load()
    assert [key.get_secret_value() for key in settings.require_alpaca_keys()] == ["hunter2", "hunter3"]
    assert "hunter" not in repr(settings)


def test_brokers_are_where_the_variables_say_or_where_they_usually_are(bare: pytest.MonkeyPatch) -> None:
    settings = Settings.load()
    assert (settings.alpaca_endpoint, settings.ib_host, settings.ib_port, settings.ib_account) == (None, None, None, None)
    bare.setenv("AQF_ALPACA_ENDPOINT", "https://paper-api.alpaca.markets")
    bare.setenv("AQF_IB_HOST", "gateway")
    bare.setenv("AQF_IB_PORT", "7497")
    bare.setenv("AQF_IB_ACCOUNT", "DU1")
    settings = Settings.load()
    assert settings.alpaca_endpoint == "https://paper-api.alpaca.markets"
    assert (settings.ib_host, settings.ib_port, settings.ib_account) == ("gateway", 7497, "DU1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AQF_IB_PORT", "0"),
        ("AQF_IB_PORT", "65536"),
        ("AQF_IB_PORT", "paper"),
        ("AQF_ALPACA_ENDPOINT", "paper-api.alpaca.markets"),
        ("AQF_ALPACA_ENDPOINT", "https://"),
        ("AQF_ALPACA_ENDPOINT", "http://[::1"),
    ],
)
def test_an_address_of_a_broker_that_is_none_is_named_by_its_variable(bare: pytest.MonkeyPatch, name: str, value: str) -> None:
    bare.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}: "):
        Settings.load()


def test_alerts_go_where_the_variables_say_and_stay_secret(bare: pytest.MonkeyPatch) -> None:
    settings = Settings.load()
    assert (settings.alert_webhook_url, settings.telegram_token, settings.telegram_chat_id) == (None, None, None)
    bare.setenv("AQF_ALERT_WEBHOOK_URL", "https://example.org/?key=hunter2")
    bare.setenv("AQF_TELEGRAM_TOKEN", "123:hunter3")
    bare.setenv("AQF_TELEGRAM_CHAT_ID", "-42")
    settings = Settings.load()
    assert settings.alert_webhook_url is not None
    assert settings.alert_webhook_url.get_secret_value() == "https://example.org/?key=hunter2"
    assert settings.telegram_chat_id == "-42"
    assert "hunter" not in repr(settings)


def test_a_contact_is_required_with_the_remedy_where_it_is_needed(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"AQF_CONTACT is not set: .* set it to a mail address of yours"):
        Settings.load().require_contact()
    for contact in ("ada@example.org", "https://example.org/about"):
        bare.setenv("AQF_CONTACT", contact)
        assert Settings.load().require_contact() == contact


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AQF_CONTACT", "Ada"),
        ("AQF_CONTACT", "ada@example.org\r\nHost: x"),
        ("AQF_CONTACT", "ad\u00e4@example.org"),
        ("AQF_SEC_URL", "sec.gov"),
        ("AQF_ARXIV_URL", "ftp://arxiv.org"),
        ("AQF_TELEGRAM_URL", "http://[::1"),
    ],
)
def test_a_contact_or_an_address_that_is_none_is_named_by_its_variable(bare: pytest.MonkeyPatch, name: str, value: str) -> None:
    bare.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}: "):
        Settings.load()


def test_a_value_that_cannot_be_read_is_named_by_its_variable(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AQF_LLM_TIMEOUT_SECONDS", "soon")
    bare.setenv("AQF_LLM_MAX_RETRIES", "11")
    with pytest.raises(ConfigurationError) as refusal:
        Settings.load()
    assert "AQF_LLM_TIMEOUT_SECONDS: Input should be a valid number" in str(refusal.value)
    assert "AQF_LLM_MAX_RETRIES: Input should be less than or equal to 10" in str(refusal.value)


def test_no_secret_shows_in_a_representation_or_an_error(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AQF_DATABASE_URL", "postgresql://me:hunter2@h/d")
    bare.setenv("OPENAI_API_KEY", "hunter3")
    assert "hunter" not in repr(Settings.load())
    bare.setenv("SUPABASE_SERVICE_ROLE_KEY", "hunter4")
    with pytest.raises(ConfigurationError) as refusal:
        Settings.load()
    assert "hunter" not in str(refusal.value)


def test_the_database_url_is_given_to_whoever_requires_it(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="AQF_DATABASE_URL is not set"):
        Settings.load().require_database_url()
    bare.setenv("AQF_DATABASE_URL", "postgresql://me:secret@h/d")
    assert Settings.load().require_database_url() == "postgresql://me:secret@h/d"


def test_settings_do_not_change(bare: pytest.MonkeyPatch) -> None:
    settings = Settings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.llm_model = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_a_key_or_an_address_configures_a_model(bare: pytest.MonkeyPatch, name: str) -> None:
    bare.setenv(name, "x")
    assert Settings.load().has_model
    bare.setenv(name, "")
    assert not Settings.load().has_model


def test_prices_of_the_environment_extend_the_list(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AQF_LLM_PRICES", '{"gpt-5": [2, 0.2, 16], "my-model": [0, 0, 0]}')
    prices = Settings.load().llm_prices
    assert prices["gpt-5"] == ModelPrice(input=2.0, cached=0.2, output=16.0)
    assert prices["my-model"] == ModelPrice(input=0.0, cached=0.0, output=0.0)
    assert prices["gpt-5-mini"] == DEFAULT_PRICES["gpt-5-mini"] == ModelPrice(input=0.25, cached=0.025, output=2.0)


def test_prices_are_not_taken_from_variables_that_happen_to_have_their_names(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("INPUT", "7")
    bare.setenv("OUTPUT", "a file")
    with pytest.raises(ValueError, match="output"):
        ModelPrice(input=1.0, cached=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "text", ["gpt-5=1", "[]", "7", '{"m": 1}', '{"m": [1, 2]}', '{"m": [1, 2, "x"]}', '{"m": [1, 2, -3]}', '{"m": [1, 2, NaN]}']
)
def test_prices_in_any_other_form_are_refused_with_an_example(bare: pytest.MonkeyPatch, text: str) -> None:
    bare.setenv("AQF_LLM_PRICES", text)
    with pytest.raises(ConfigurationError, match=r'AQF_LLM_PRICES: must be JSON such as \{"gpt-5": \['):
        Settings.load()


@given(st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_no_text_of_prices_escapes_as_another_error(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AQF_LLM_PRICES", text)
        try:
            assert set(Settings.load().llm_prices) >= set(DEFAULT_PRICES)
        except ConfigurationError as refusal:
            assert "AQF_LLM_PRICES" in str(refusal)


def test_a_dotenv_beside_the_process_is_read(dotenv: Path) -> None:
    dotenv.write_text("AQF_LLM_MODEL=from-the-file\nUNKNOWN=1\n")
    assert Settings.load().llm_model == "from-the-file"


def test_a_variable_goes_before_the_dotenv(dotenv: Path, bare: pytest.MonkeyPatch) -> None:
    dotenv.write_text("AQF_LLM_MODEL=from-the-file\n")
    bare.setenv("AQF_LLM_MODEL", "from-the-environment")
    assert Settings.load().llm_model == "from-the-environment"


def test_half_of_supabase_in_the_dotenv_is_an_error_too(dotenv: Path) -> None:
    dotenv.write_text("SUPABASE_URL=https://x.supabase.co\n")
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY is not"):
        Settings.load()


def test_the_tests_themselves_read_no_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("AQF_LLM_MODEL=from-the-file\n")
    monkeypatch.chdir(tmp_path)
    assert Settings.load().llm_model == "gpt-5-mini"


def test_cutoffs_of_models_are_overridden_and_extended(bare: pytest.MonkeyPatch) -> None:
    assert Settings.load().llm_cutoffs == DEFAULT_CUTOFFS
    bare.setenv("AQF_LLM_CUTOFFS", '{"gpt-5": "2025-01-31", "my-model": "2026-06-30"}')
    cutoffs = Settings.load().llm_cutoffs
    assert cutoffs["gpt-5"] == date(2025, 1, 31)
    assert cutoffs["my-model"] == date(2026, 6, 30)
    assert cutoffs["gpt-4o"] == DEFAULT_CUTOFFS["gpt-4o"]


def test_every_model_with_a_price_that_plans_has_a_cutoff_before_the_table_was_made() -> None:
    assert DEFAULT_CUTOFFS.keys() == DEFAULT_PRICES.keys() - {"text-embedding-3-small"}
    assert all(cutoff < date.fromisoformat(CUTOFFS_AS_OF) for cutoff in DEFAULT_CUTOFFS.values())


@pytest.mark.parametrize(
    "text", ["soon", '{"m": "2024"}', '{"m": 20240930}', '{"m": "2024-13-01"}', '["2024-01-01"]', '{"m": null}']
)
def test_cutoffs_that_are_no_dates_are_refused(bare: pytest.MonkeyPatch, text: str) -> None:
    bare.setenv("AQF_LLM_CUTOFFS", text)
    with pytest.raises(ConfigurationError, match=r'AQF_LLM_CUTOFFS: must be JSON such as \{"gpt-5": "2024-09-30"\}'):
        Settings.load()
