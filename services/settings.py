"""Every setting of every process, declared once: `TIDINGS_*` in the environment, or `tidings.toml`.

The environment wins over the file named by `TIDINGS_CONFIG` (default `tidings.toml` in the working directory, if
there is one). `TIDINGS_NAME_FILE` names a file with the value of `TIDINGS_NAME`. `docs/configuration.md` is generated from this class, and a test compares the two.
Units are in the names: `_s` seconds, `_ms` milliseconds, `_bytes` bytes. A rate or count of 0 switches a limit off.
"""

import ipaddress
import secrets
import socket
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, PlainValidator, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from services.settings_sources import FilesNamedByVariables, config_file
from services.settings_values import (
    PLAIN_WORD,
    CommaList,
    Namespace,
    PresenceEvent,
    default_namespaces,
    is_loopback,
    parse_grants,
)
from services.wire.grants import DEFAULT, Grants
from services.wire.subjects import DEFAULT_NAMESPACE, Subjects


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
    traces_endpoint: str = Field(
        "",
        description="Where OpenTelemetry traces are sent, OTLP over HTTP, `http://collector:4318`; empty: no traces. Needs the optional part `tracing`.",
    )
    traces_ratio: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Part of all traces that is recorded, where a request does not decide it.",
    )
    traces_follow_clients: bool = Field(
        True,
        description="HTTP requests with `traceparent` go on with that trace, and decide whether it is recorded. Switch it off where untrusted clients send requests.",
    )

    # --- the bus and the store ---
    nats_url: str = Field(
        "",
        description="NATS server(s), comma-separated `nats://user:password@host:port`. `tidings up` starts one when empty.",
    )
    redis_url: str = Field(
        "",
        description="Redis or Valkey: `redis://user:password@host:port/0`, `redis+cluster://…@host,host`, `redis+sentinel://…@host,host/NAME/0`; `rediss` for TLS. `tidings up` starts one when empty.",
    )
    redis_sentinel_login: SecretStr = Field(
        SecretStr(""),
        description="`user:password` or `:password` at the Sentinels, `none` where they ask for none; when empty, that of the URL.",
    )
    prefix: str = Field(
        "tidings",
        description="First token of every subject, stream and key: deployments sharing servers need different ones.",
    )
    nats_ca: Path | None = Field(
        None, description="Certificates that sign those of NATS (`tls://` URLs); the system's when empty."
    )
    nats_cert: Path | None = Field(None, description="Our certificate, where NATS asks clients for one.")
    nats_key: Path | None = Field(None, description="The private key of `nats_cert`.")
    redis_ca: Path | None = Field(
        None, description="Certificates that sign those of Redis (`rediss://` URLs); the system's when empty."
    )
    redis_cert: Path | None = Field(None, description="Our certificate, where Redis asks clients for one.")
    redis_key: Path | None = Field(None, description="The private key of `redis_cert`.")
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
        25_000, ge=1000, description="How often the server pings; sent to clients in `welcome`."
    )
    idle_timeout_s: float = Field(
        60.0, gt=0, description="A connection that sends nothing for so long, not even a pong, is closed."
    )
    handshake_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Seconds a connection may take to send its request head and be answered, and before that for TLS.",
    )
    tls_cert: Path | None = Field(
        None, description="Certificate chain (PEM) to serve clients with; without it TLS ends at a proxy."
    )
    tls_key: Path | None = Field(None, description="The private key of `tls_cert`.")
    trusted_proxies: CommaList[str] = Field(
        default_factory=list,
        description="Addresses or networks of proxies that are trusted to name a client's address.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for",
        description="The header those proxies set; the other one is ignored, because clients may send it.",
    )
    max_head_bytes: int = Field(
        16_384, ge=1024, description="Largest request line and headers together; more is answered 431."
    )
    body_timeout_s: float = Field(30.0, gt=0, description="Seconds an HTTP request body may take to arrive.")
    write_timeout_s: float = Field(
        30.0, ge=0, description="Seconds a client may be behind in reading before it is disconnected."
    )
    frame_rate: float = Field(
        500.0,
        ge=0,
        description="Frames per second of one connection that are no whole message (pings, pongs, fragments); bursts of twice that pass, more closes with 4503.",
    )
    max_message_bytes: int = Field(65_536, ge=1024, description="Largest message a client may send.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest HTTP request body.")
    max_custom_data_bytes: int = Field(4096, ge=0, description="Largest `customData` of a user.")
    max_json_depth: int = Field(
        64,
        ge=1,
        le=400,
        description="How deep arrays and objects may be nested in `content` and `customData`.",
    )
    max_rooms_per_connection: int = Field(100, ge=0, description="Rooms one connection may be in.")
    message_rate: float = Field(
        100.0, ge=0, description="Messages per second of one connection; bursts of twice that pass."
    )
    message_bytes_rate: float = Field(
        1_048_576.0,
        ge=0,
        description="Bytes of messages per second of one connection; bursts of twice that pass. Custom data counts again for each room of the user's connections.",
    )
    presence_rate: float = Field(
        5.0,
        ge=0,
        description="Changes of status and custom data per second of one connection; bursts of twice that pass.",
    )
    accept_rate: float = Field(
        0.0,
        ge=0,
        description="New connections per second of one gateway; more are answered 503 with Retry-After.",
    )
    request_rate: float = Field(
        0.0,
        ge=0,
        description="HTTP requests per second from one address (IPv6: one /64) to one gateway, but for those with an API key; bursts of twice that pass.",
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
    recovery_max_bytes: int = Field(
        1_048_576,
        ge=65_536,
        description="Most bytes of messages that one recovery or one page of history returns; more missed means `recovered: false`.",
    )
    history_max_bytes: int = Field(
        536_870_912,
        ge=1_048_576,
        description="Bytes kept of all rooms of one durable namespace, then the oldest go. JetStream reserves them in its store, on each server with a copy.",
    )
    inbox_max_bytes: int = Field(
        134_217_728,
        ge=1_048_576,
        description="Bytes kept of all users' direct messages, then the oldest go. Reserved as above.",
    )
    compression: bool = Field(
        False, description="Offer permessage-deflate (without context takeover, so that frames are shared)."
    )
    namespaces: dict[str, Namespace] = Field(
        default_factory=default_namespaces,
        description="Options by room prefix: `[namespaces.NAME]` in TOML, JSON in the environment. `default` and `live` exist always.",
    )

    # --- who may come in ---
    auth: Literal["open", "jwt"] = Field(
        "open",
        description="`open` admits everyone, and only while bound to loopback; `jwt` requires a token.",
    )
    open_beyond_loopback: bool = Field(
        False,
        description="Serve `open` on any address: for containers whose port is published on loopback alone.",
    )
    session_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs the `session` of anonymous users; the same on all gateways. Made up when empty: sessions then end with the process.",
    )
    jwt_secrets: CommaList[SecretStr] = Field(
        default_factory=list, description="HS256 secrets, first one signs, all verify."
    )
    jwks_url: str = Field(
        "", description="Where the public keys of `jwt_issuer` are (https; http on loopback)."
    )
    jwks_issuers: dict[str, str] = Field(
        default_factory=dict,
        description="Further issuers and where their public keys are: `[jwks_issuers]` in TOML, JSON in the environment.",
    )
    jwt_issuer: str = Field(
        "", description="Required `iss` of tokens signed with `jwt_secrets` or a key of `jwks_url`."
    )
    jwt_audience: str = Field("tidings", description="Required `aud`.")
    origins: CommaList[str] = Field(
        default_factory=list, description="Origins whose pages may connect; empty: the page's own host only."
    )
    ticket_ttl_s: float = Field(30.0, gt=0, le=300, description="Seconds a ticket is good for.")
    ticket_rate: float = Field(
        5.0, ge=0, description="Tickets per second for one user, of one gateway; bursts of twice that pass."
    )
    api_keys: CommaList[SecretStr] = Field(
        default_factory=list,
        description="Keys of the server API, plain or as `sha256:HEX` (`tidings key`), each with `;scopes=A+B` or for everything. Several may hold at once.",
    )
    default_grants: Annotated[Grants, PlainValidator(parse_grants)] = Field(
        DEFAULT,
        description="What a token without a `tidings` claim allows: `[default_grants]` in TOML, JSON in the environment.",
    )
    expiry_notice_s: float = Field(
        60.0, ge=0, description="Seconds before its token expires that a client is sent `token_expiring`."
    )
    revocation_s: int = Field(
        2_592_000,
        ge=60,
        description="Seconds a revocation is remembered; tokens that live longer than that are refused.",
    )
    echo_endpoint: bool | None = Field(None, description="Serve `/ws/echo`; by default under `open` only.")

    # --- presence ---
    presence_renew_s: float = Field(3.0, gt=0, description="How often a gateway renews its lease.")
    presence_lease_s: float = Field(
        8.0, gt=0, description="Seconds after the last renewal until a gateway's connections are gone."
    )
    presence_grace_s: float = Field(
        5.0, ge=0, description="Seconds a user stays online after the last connection was lost."
    )

    presence_room_limit: int = Field(
        1000,
        ge=0,
        description="Users of a room above which no joins, leaves and lists are sent, only counts; 0: always lists.",
    )
    presence_online_limit: int = Field(
        10_000,
        ge=0,
        description="Users online above which the channel `presence` sends no list and no changes, only counts; 0: always lists.",
    )
    presence_webhook_urls: CommaList[str] = Field(
        default_factory=list, description="Where events of presence are posted, signed."
    )
    presence_webhook_secrets: CommaList[SecretStr] = Field(
        default_factory=list,
        description="Sign the webhooks of presence, each one; two while a secret is replaced. Required with URLs.",
    )
    presence_webhook_events: CommaList[PresenceEvent] = Field(
        default_factory=lambda: list(get_args(PresenceEvent)),
        description="Which events of presence are posted.",
    )
    presence_webhook_queue: int = Field(
        10_000, ge=1, description="Events kept for webhooks that do not answer; then the oldest are dropped."
    )

    # --- metrics and alerts ---
    rules_file: Path | None = Field(
        None, description="TOML file with alert rules; the built-in rules when empty."
    )
    agent_interval_s: float = Field(1.0, gt=0, description="How often the agent samples its machine.")
    agent_proc: Path = Field(
        Path("/proc"),
        description="Where the agent reads about its machine. In a container, where the host's `/proc` is mounted: then it reports the host, not the container's share of it.",
    )
    webhook_urls: CommaList[str] = Field(
        default_factory=list, description="Where alerts are posted, in Alertmanager's webhook format."
    )
    alertmanager_urls: CommaList[str] = Field(
        default_factory=list, description="Alertmanagers that alerts are pushed to, `http://host:9093`."
    )
    notify_urls: CommaList[SecretStr] = Field(
        default_factory=list,
        description="E-mail, chat and other services by apprise URL; needs the optional part `notify`.",
    )
    notify_group_by: CommaList[str] = Field(
        default_factory=lambda: ["metric"],
        description="Fields or labels in which alerts of one notification agree; `...` sends each alone.",
    )
    notify_group_wait_s: float = Field(
        30.0, ge=0, description="Seconds from a group's first alert to its first notification."
    )
    notify_group_interval_s: float = Field(
        300.0, ge=0, description="Least seconds between two notifications about one group."
    )
    notify_repeat_interval_s: float = Field(
        14_400.0, gt=0, description="Seconds after which a notification about what still fires is repeated."
    )
    external_url: str = Field("", description="Where people find this deployment; goes into notifications.")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            ipaddress.ip_network(text, strict=False)  # its ValueError says what is wrong
        return value

    @field_validator("prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        if not PLAIN_WORD.fullmatch(value):
            raise ValueError("must be 1 to 32 of a-z, 0-9, - and _")
        return value

    @field_validator("namespaces")
    @classmethod
    def _plain_namespaces(cls, value: dict[str, Namespace]) -> dict[str, Namespace]:
        for name in value:
            if not PLAIN_WORD.fullmatch(name):
                raise ValueError(f"namespace {name!r}: must be 1 to 32 of a-z, 0-9, - and _")
        return default_namespaces() | value

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
        return init_settings, env_settings, FilesNamedByVariables(settings_cls), toml

    @property
    def is_exposed(self) -> bool:
        """Whether `open` would be served beyond loopback, without the setting that permits it."""
        return self.auth == "open" and not self.open_beyond_loopback and not is_loopback(self.host)

    @property
    def subjects(self) -> Subjects:
        """The subjects of this deployment."""
        return Subjects(self.prefix)

    def namespace_of(self, room: str) -> str:
        """Return the namespace of a room: the name before its first `:`, if configured."""
        head, colon, _ = room.partition(":")
        return head if colon and head in self.namespaces else DEFAULT_NAMESPACE


@lru_cache(maxsize=1)
def random_suffix() -> str:
    """Return a suffix that distinguishes this process from others on this host, the same for its life."""
    return secrets.token_hex(3)


def instance_name(settings: Settings, kind: str) -> str:
    """Return the name of this process: the configured one, or `KIND-HOST-RANDOM`."""
    return settings.instance or f"{kind}-{socket.gethostname().split('.')[0]}-{random_suffix()}"
