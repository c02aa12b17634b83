"""The only reader of the environment.

Hides where a setting comes from (environment, then a `.env` file in the working directory) and promises that a
half-configured environment is an error with the remedy, never a silent fallback.
"""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import ConfigurationError

CHECKOUT = Path(__file__).resolve().parents[1]
"""Folder that holds `core/`: the root of a checkout, or site-packages of an installation."""


class StoreKind(StrEnum):
    """Which database the settings choose."""

    EMBEDDED = "embedded"
    DATABASE_URL = "database_url"
    SUPABASE = "supabase"
    SQLITE = "sqlite"


class EmbedderKind(StrEnum):
    """Which text embedder the settings choose."""

    OPENAI = "openai"
    HASHED = "hashed"


def default_home() -> Path:
    """Return `.aqf` in the checkout this code runs from, or `~/.aqf` for an installed package."""
    if (CHECKOUT / "supabase" / "migrations").is_dir() and (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT / ".aqf"
    return Path.home() / ".aqf"


class ModelPrice(BaseModel):
    """Price of one model in US dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0, allow_inf_nan=False)
    cached: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


PRICES_AS_OF = "2026-11-01"
DEFAULT_PRICES = {
    "gpt-5": ModelPrice(input=1.25, cached=0.125, output=10.0),
    "gpt-5-mini": ModelPrice(input=0.25, cached=0.025, output=2.0),
    "gpt-5-nano": ModelPrice(input=0.05, cached=0.005, output=0.4),
    "gpt-4.1": ModelPrice(input=2.0, cached=0.5, output=8.0),
    "gpt-4.1-mini": ModelPrice(input=0.4, cached=0.1, output=1.6),
    "gpt-4o": ModelPrice(input=2.5, cached=1.25, output=10.0),
    "gpt-4o-mini": ModelPrice(input=0.15, cached=0.075, output=0.6),
    "text-embedding-3-small": ModelPrice(input=0.02, cached=0.02, output=0.0),
}
"""List prices of `PRICES_AS_OF`; `AQF_LLM_PRICES` overrides and extends them."""

CUTOFFS_AS_OF = "2026-11-01"
DEFAULT_CUTOFFS = {
    "gpt-5": date(2024, 9, 30),
    "gpt-5-mini": date(2024, 5, 31),
    "gpt-5-nano": date(2024, 5, 31),
    "gpt-4.1": date(2024, 6, 1),
    "gpt-4.1-mini": date(2024, 6, 1),
    "gpt-4o": date(2023, 10, 1),
    "gpt-4o-mini": date(2023, 10, 1),
}
"""Last days the models know of, as their maker says on `CUTOFFS_AS_OF`; `AQF_LLM_CUTOFFS` overrides and extends them."""

_PRICE_TABLE = TypeAdapter(dict[str, tuple[float, float, float]])
_CONTACT = re.compile(r"[^@\s]+@[^@\s]+|https?://\S+")
_CUTOFF_TABLE = TypeAdapter(dict[str, date])


def _variable(field: int | str) -> str:
    """Return the variable a field is read from; one of another prefix is already called by it."""
    return f"AQF_{field}".upper() if str(field).islower() else str(field)


class Settings(BaseSettings):
    """Everything the framework takes from its surroundings, read once.

    Raises
    ------
    ConfigurationError
        From :meth:`load`, when settings contradict each other.
    """

    # With populate_by_name a field is read from the variable of its own name too: the prefix keeps HOME and DATABASE_URL out.
    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_prefix="AQF_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        populate_by_name=True,
    )

    home: Path = Field(default_factory=default_home)
    store: Literal["auto", "sqlite"] = Field(default="auto")
    text_embedder: Literal["auto", "openai", "hashed"] = Field(default="auto")
    database_url: SecretStr | None = Field(default=None)
    keep_server: bool = Field(default=False)
    trace_file: Path | None = Field(default=None)
    log_file: Path | None = Field(default=None)
    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_protocol: Literal["http/protobuf", "grpc"] = Field(
        default="http/protobuf", validation_alias="OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    supabase_url: str | None = Field(default=None, validation_alias="SUPABASE_URL")
    supabase_key: SecretStr | None = Field(default=None, validation_alias="SUPABASE_SERVICE_ROLE_KEY")
    supabase_db_url: SecretStr | None = Field(default=None, validation_alias="SUPABASE_DB_URL")
    supabase_jwt_secret: SecretStr | None = Field(default=None, validation_alias="SUPABASE_JWT_SECRET")
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    ray_address: str | None = Field(default=None)
    alpaca_key_id: SecretStr | None = Field(default=None, validation_alias="APCA_API_KEY_ID")
    alpaca_secret_key: SecretStr | None = Field(default=None, validation_alias="APCA_API_SECRET_KEY")
    alpaca_endpoint: str | None = Field(default=None)
    ib_host: str | None = Field(default=None)
    ib_port: int | None = Field(default=None, ge=1, le=65_535)
    ib_account: str | None = Field(default=None)
    contact: str | None = Field(default=None)
    alert_webhook_url: SecretStr | None = Field(default=None)
    telegram_token: SecretStr | None = Field(default=None)
    telegram_chat_id: str | None = Field(default=None)
    # Where something stands in for a public service: a mirror, a bot server of one's own, a test.
    sec_url: str | None = Field(default=None)
    arxiv_url: str | None = Field(default=None)
    telegram_url: str | None = Field(default=None)
    paper_trading: bool = Field(default=True)
    arm_real_money: bool = Field(default=False, validation_alias="ARM_REAL_MONEY")
    llm_model: str = Field(default="gpt-5-mini")
    llm_timeout_seconds: float = Field(default=120.0, gt=0)
    llm_max_retries: int = Field(default=2, ge=0, le=10)
    llm_prices: Annotated[dict[str, ModelPrice], NoDecode] = Field(default_factory=lambda: dict(DEFAULT_PRICES))
    llm_cutoffs: Annotated[dict[str, date], NoDecode] = Field(default_factory=lambda: dict(DEFAULT_CUTOFFS))

    @field_validator(
        "database_url",
        "supabase_url",
        "supabase_key",
        "supabase_db_url",
        "supabase_jwt_secret",
        "openai_api_key",
        "openai_base_url",
        "ray_address",
        "alpaca_key_id",
        "alpaca_secret_key",
        "alpaca_endpoint",
        "ib_host",
        "ib_port",
        "ib_account",
        "contact",
        "alert_webhook_url",
        "telegram_token",
        "telegram_chat_id",
        mode="before",
    )
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("home", "trace_file", "log_file", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        try:
            return None if value is None else value.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"{value} names a user that does not exist: give a full path.") from error

    @field_validator("alpaca_endpoint", "sec_url", "arxiv_url", "telegram_url", mode="after")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("must be an address such as https://paper-api.alpaca.markets.")
        return None if value is None else value.rstrip("/")

    @field_validator("contact", mode="after")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        if value is not None and not (_CONTACT.fullmatch(value) and value.isascii() and value.isprintable()):
            raise ValueError("must be a mail address or a web address by which you are reached, such as ada@example.org.")
        return value

    @field_validator("llm_prices", mode="before")
    @classmethod
    def _prices(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            table = _PRICE_TABLE.validate_json(value)
            prices = {model: ModelPrice(input=p[0], cached=p[1], output=p[2]) for model, p in table.items()}
        except ValidationError as error:
            raise ValueError(
                'must be JSON such as {"gpt-5": [1.25, 0.125, 10.0]}: dollars per million tokens in, cached, out.'
            ) from error
        return {**DEFAULT_PRICES, **prices}

    @field_validator("llm_cutoffs", mode="before")
    @classmethod
    def _cutoffs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return {**DEFAULT_CUTOFFS, **_CUTOFF_TABLE.validate_json(value, strict=True)}
        except ValidationError as error:
            raise ValueError('must be JSON such as {"gpt-5": "2024-09-30"}: the last day each model knows of.') from error

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        if self.supabase_key is not None and self.supabase_url is None:
            raise ValueError("SUPABASE_SERVICE_ROLE_KEY is set but SUPABASE_URL is not: set both, or neither.")
        if self.supabase_url is not None and self.supabase_key is None:
            raise ValueError("SUPABASE_URL is set but SUPABASE_SERVICE_ROLE_KEY is not: set both, or neither.")
        for known, first, missing, second in (
            ("APCA_API_KEY_ID", self.alpaca_key_id, "APCA_API_SECRET_KEY", self.alpaca_secret_key),
            ("AQF_TELEGRAM_TOKEN", self.telegram_token, "AQF_TELEGRAM_CHAT_ID", self.telegram_chat_id),
        ):
            if (first is None) != (second is None):
                known, missing = (known, missing) if second is None else (missing, known)
                raise ValueError(f"{known} is set but {missing} is not: set both, or neither.")
        if self.store == "sqlite" and (self.database_url is not None or self.supabase_url is not None):
            named = "SUPABASE_URL" if self.database_url is None else "AQF_DATABASE_URL"
            raise ValueError(f"AQF_STORE is sqlite but {named} names a database: take one of them away.")
        if self.text_embedder == "openai" and not self.has_model:
            raise ValueError(
                "AQF_TEXT_EMBEDDER is openai but neither OPENAI_API_KEY nor OPENAI_BASE_URL is set: set one, or choose hashed."
            )
        return self

    @property
    def store_kind(self) -> StoreKind:
        """Which database is in force: Supabase, a database URL, files where they are asked for, or the embedded server."""
        if self.store == "sqlite":
            return StoreKind.SQLITE
        if self.database_url is not None:
            return StoreKind.DATABASE_URL
        return StoreKind.SUPABASE if self.supabase_url is not None else StoreKind.EMBEDDED

    @property
    def embedder_kind(self) -> EmbedderKind:
        """Which text embedder is in force: the one asked for, else OpenAI's where there is a key for it."""
        if self.text_embedder != "auto":
            return EmbedderKind(self.text_embedder)
        return EmbedderKind.HASHED if self.openai_api_key is None else EmbedderKind.OPENAI

    def require_database_url(self) -> str:
        """Return the database URL.

        Raises
        ------
        ConfigurationError
            If there is none.
        """
        if self.database_url is None:
            raise ConfigurationError("AQF_DATABASE_URL is not set.")
        return self.database_url.get_secret_value()

    def require_supabase(self) -> tuple[str, str]:
        """Return address and service-role key of the Supabase project.

        Raises
        ------
        ConfigurationError
            If they are not set.
        """
        if self.supabase_url is None or self.supabase_key is None:
            raise ConfigurationError("SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY are not set.")
        return self.supabase_url, self.supabase_key.get_secret_value()

    def require_alpaca_keys(self) -> tuple[SecretStr, SecretStr]:
        """Return the key of the Alpaca account and its secret.

        Raises
        ------
        ConfigurationError
            If they are not set.
        """
        if self.alpaca_key_id is None or self.alpaca_secret_key is None:
            raise ConfigurationError(
                "APCA_API_KEY_ID and APCA_API_SECRET_KEY are not set: make keys of a paper account at Alpaca and set both."
            )
        return self.alpaca_key_id, self.alpaca_secret_key

    def require_contact(self) -> str:
        """Return how whoever runs this is reached.

        Raises
        ------
        ConfigurationError
            If nobody said.
        """
        if self.contact is None:
            raise ConfigurationError(
                "AQF_CONTACT is not set: the SEC and arXiv want to know how they reach whoever asks; "
                "set it to a mail address of yours."
            )
        return self.contact

    @property
    def has_model(self) -> bool:
        """Whether a language model is configured."""
        return self.openai_api_key is not None or self.openai_base_url is not None

    def price_of(self, model: str) -> tuple[ModelPrice, bool]:
        """Return the price of a model, and whether it is known; an unknown one is billed at the dearest of the table."""
        known = self.llm_prices.get(model)
        if known is not None:
            return known, True
        prices = self.llm_prices.values()
        return ModelPrice(
            input=max(p.input for p in prices), cached=max(p.cached for p in prices), output=max(p.output for p in prices)
        ), False

    @classmethod
    def load(cls) -> Settings:
        """Read the environment.

        Raises
        ------
        ConfigurationError
            If a value cannot be read, or the settings contradict each other.
        """
        try:
            return cls()
        except ValidationError as error:
            text = "; ".join(
                ": ".join([*map(_variable, item["loc"][:1]), item["msg"].removeprefix("Value error, ")])
                for item in error.errors(include_url=False, include_input=False)
            )
            raise ConfigurationError(f"the environment cannot be used: {text}") from None
