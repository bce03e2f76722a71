"""Every setting of every process, declared once: `TIDINGS_*` in the environment, or `tidings.toml`.

The environment wins over the file named by `TIDINGS_CONFIG` (default `tidings.toml` in the working directory, if
there is one). `docs/configuration.md` is generated from this class, and a test compares the two.
Units are in the names: `_s` seconds, `_ms` milliseconds, `_bytes` bytes. A rate or count of 0 switches a limit off.
"""

import os
import re
import secrets
import socket
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from services.wire.subjects import DEFAULT_NAMESPACE, Subjects

_PLAIN_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class Namespace(BaseModel):
    """Options of the rooms whose name starts with `NAME:` (or, for `default`, of all others)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    durable: bool = Field(True, description="Messages are stored, numbered and can be recovered.")
    history_size: int = Field(100, ge=1, le=100_000, description="Messages kept per room.")
    history_ttl_s: int = Field(600, ge=1, description="Seconds a message is kept.")


def _default_namespaces() -> dict[str, Namespace]:
    return {DEFAULT_NAMESPACE: Namespace(), "live": Namespace(durable=False)}


def _split(value: object) -> object:
    """Lists come from the environment as `a,b` and from TOML as arrays."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


CommaList = Annotated[list[str], NoDecode]


class Settings(BaseSettings):
    """The effective configuration of one process."""

    model_config = SettingsConfigDict(env_prefix="TIDINGS_", extra="forbid", frozen=True)

    # --- this process ---
    instance: str = Field(
        "", description="Name of this process in logs, metrics and presence; made up when empty."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is console on a terminal, else JSON."
    )
    shutdown_s: float = Field(8.0, gt=0, description="Seconds a process may take to stop.")

    # --- the bus and the store ---
    nats_url: str = Field(
        "",
        description="NATS server(s), comma-separated `nats://user:password@host:port`. `tidings up` starts one when empty.",
    )
    redis_url: str = Field(
        "",
        description="Redis server, `redis://user:password@host:port/0`. `tidings up` starts one when empty.",
    )
    prefix: str = Field(
        "tidings",
        description="First token of every subject, stream and key: deployments sharing servers need different ones.",
    )
    replicas: int = Field(1, ge=1, le=5, description="Copies of each stream in a NATS cluster.")
    bus_connect_s: float = Field(10.0, gt=0, description="Seconds to wait for the first connection to NATS.")
    publish_timeout_s: float = Field(
        5.0, gt=0, description="Seconds until an unacknowledged publish is answered `unavailable`."
    )
    duplicate_window_s: int = Field(
        120, ge=1, description="Seconds within which an equal message `id` is stored once."
    )

    # --- the gateway ---
    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port the gateway listens on; 0 picks a free one.")
    health_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port for health and Prometheus metrics of presence_svc, metrics_svc and agent; 0 picks a free one.",
    )
    health_host: str = Field("", description="Address of the health port; that of `host` when empty.")
    gateways: int = Field(2, ge=1, le=64, description="Gateways that `tidings up` starts on the one port.")
    data_dir: Path = Field(
        Path(".tidings"), description="Where `tidings up` keeps its servers' data and secrets."
    )
    heartbeat_interval_ms: int = Field(
        25_000, ge=1000, description="How often the server pings, told to clients in `welcome`."
    )
    idle_timeout_s: float = Field(
        60.0, gt=0, description="A connection that sends nothing for so long, not even a pong, is closed."
    )
    handshake_timeout_s: float = Field(
        10.0, gt=0, description="Seconds a connection may take to send its request head and be answered."
    )
    max_message_bytes: int = Field(65_536, ge=1024, description="Largest message a client may send.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest HTTP request body.")
    max_custom_data_bytes: int = Field(4096, ge=0, description="Largest `customData` of a user.")
    max_rooms_per_connection: int = Field(100, ge=0, description="Rooms one connection may be in.")
    message_rate: float = Field(
        100.0, ge=0, description="Messages per second of one connection; bursts of twice that pass."
    )
    accept_rate: float = Field(
        0.0,
        ge=0,
        description="New connections per second of one gateway; more are answered 503 with Retry-After.",
    )
    connections_per_address: int = Field(
        0, ge=0, description="Connections from one address (IPv6: one /64) to one gateway."
    )
    connections_per_user: int = Field(0, ge=0, description="Connections of one user across all gateways.")
    write_buffer_bytes: int = Field(
        1_048_576, ge=65_536, description="Bytes that may wait for one slow client before it is disconnected."
    )
    room_linger_s: float = Field(
        5.0, ge=0, description="Seconds a room's subscription outlives its last member."
    )
    drain_s: float = Field(
        6.0, ge=0, description="Seconds over which a stopping gateway sends its clients away."
    )
    recovery_limit: int = Field(
        300,
        ge=1,
        le=10_000,
        description="Most messages one recovery returns; more missed means `recovered: false`.",
    )
    compression: bool = Field(
        False, description="Offer permessage-deflate (without context takeover, so that frames are shared)."
    )
    namespaces: dict[str, Namespace] = Field(
        default_factory=_default_namespaces,
        description="Options by room prefix: `[namespaces.NAME]` in TOML, JSON in the environment. `default` and `live` exist always.",
    )

    # --- who may come in ---
    auth: Literal["open", "jwt"] = Field(
        "open", description="`open` lets anyone in, and only while bound to loopback; `jwt` asks for a token."
    )
    session_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs the `session` of anonymous users; the same on all gateways. Made up when empty: sessions then end with the process.",
    )
    jwt_secrets: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list, description="HS256 secrets, first one signs, all verify."
    )
    jwks_url: str = Field("", description="Where the public keys are.")
    jwt_issuer: str = Field("", description="Required `iss`.")
    jwt_audience: str = Field("tidings", description="Required `aud`.")
    origins: CommaList = Field(
        default_factory=list, description="Origins whose pages may connect; empty: the page's own host only."
    )
    ticket_ttl_s: float = Field(30.0, gt=0, le=300, description="Seconds a ticket is good for.")
    api_keys: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list, description="Keys of the server API."
    )
    echo_endpoint: bool | None = Field(None, description="Serve `/ws/echo`; by default under `open` only.")

    # --- presence ---
    presence_renew_s: float = Field(3.0, gt=0, description="How often a gateway renews its lease.")
    presence_lease_s: float = Field(
        9.0, gt=0, description="Seconds after the last renewal until a gateway's connections are gone."
    )
    presence_grace_s: float = Field(
        5.0, ge=0, description="Seconds a user stays online after the last connection was lost."
    )

    # --- metrics and alerts ---
    rules_file: Path | None = Field(
        None, description="TOML file with alert rules; the built-in rules when empty."
    )
    agent_interval_s: float = Field(1.0, gt=0, description="How often the agent samples its machine.")
    webhook_urls: CommaList = Field(
        default_factory=list, description="Where alerts are posted, in Alertmanager's webhook format."
    )

    @field_validator("jwt_secrets", "api_keys", "origins", "webhook_urls", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return _split(value)

    @field_validator("prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        if not _PLAIN_WORD.fullmatch(value):
            raise ValueError("must be 1 to 32 of a-z, 0-9, - and _")
        return value

    @field_validator("namespaces")
    @classmethod
    def _plain_namespaces(cls, value: dict[str, Namespace]) -> dict[str, Namespace]:
        for name in value:
            if not _PLAIN_WORD.fullmatch(name):
                raise ValueError(f"namespace {name!r}: must be 1 to 32 of a-z, 0-9, - and _")
        return _default_namespaces() | value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings names it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings names it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        return init_settings, env_settings, toml

    @property
    def subjects(self) -> Subjects:
        """The subjects of this deployment."""
        return Subjects(self.prefix)

    def namespace_of(self, room: str) -> str:
        """Return the namespace whose options hold for a room: what stands before its first `:`, if configured."""
        head, colon, _ = room.partition(":")
        return head if colon and head in self.namespaces else DEFAULT_NAMESPACE


def config_file() -> Path | None:
    """Return the configuration file in force.

    Raises:
        FileNotFoundError: `TIDINGS_CONFIG` names a file that does not exist.
    """
    named = os.environ.get("TIDINGS_CONFIG")
    path = Path(named or "tidings.toml")
    if path.is_file():
        return path
    if named:
        raise FileNotFoundError(f"TIDINGS_CONFIG names {named}, which does not exist")
    return None


@lru_cache(maxsize=1)
def random_suffix() -> str:
    """Return what tells this process from others on this host, the same for its life."""
    return secrets.token_hex(3)


def instance_name(settings: Settings, kind: str) -> str:
    """Return the name of this process: the configured one, or `KIND-HOST-RANDOM`."""
    return settings.instance or f"{kind}-{socket.gethostname().split('.')[0]}-{random_suffix()}"
