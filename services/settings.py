"""Every setting of every process, declared once: `TIDINGS_*` in the environment, or `tidings.toml`.

The environment wins over the file named by `TIDINGS_CONFIG` (default: `tidings.toml` in the working directory, if it
exists). `TIDINGS_NAME_FILE` names a file with the value of `TIDINGS_NAME`. `docs/configuration.md` is generated from
this class. Units are in the names: `_s` seconds, `_ms` milliseconds, `_bytes` bytes. 0 disables a limit.
"""

import ipaddress
import secrets
import socket
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

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
    HookName,
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
    instance: str = Field("", description="Name in logs, metrics and presence. Generated when empty.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` means console on a terminal, else JSON."
    )
    shutdown_s: float = Field(8.0, gt=0, description="Time limit for stopping.")
    traces_endpoint: str = Field(
        "",
        description="OTLP/HTTP endpoint for OpenTelemetry traces, for example `http://collector:4318`. Empty: no traces. Needs the optional part `tracing`.",
    )
    traces_ratio: float = Field(
        0.01, ge=0, le=1, description="Share of traces to record, where no request decides it."
    )
    traces_follow_clients: bool = Field(
        True,
        description="Continue the trace of HTTP requests with `traceparent`; they decide whether it is recorded. Disable it where untrusted clients send requests.",
    )

    # --- the bus and the store ---
    nats_url: str = Field(
        "",
        description="NATS servers, comma-separated: `nats://user:password@host:port`. Empty: `tidings up` starts one.",
    )
    redis_url: str = Field(
        "",
        description="Redis or Valkey: `redis://user:password@host:port/0`, `redis+cluster://…@host,host`, `redis+sentinel://…@host,host/NAME/0`; `rediss` for TLS. Empty: `tidings up` starts one.",
    )
    redis_sentinel_login: SecretStr = Field(
        SecretStr(""),
        description="Login at the Sentinels: `user:password` or `:password`; `none` where they require none. Empty: the login of the URL.",
    )
    prefix: str = Field(
        "tidings",
        description="First token of every subject, stream and key. Deployments that share servers need different prefixes.",
    )
    nats_ca: Path | None = Field(
        None, description="CA certificates for NATS (`tls://`). Empty: the system's."
    )
    nats_cert: Path | None = Field(None, description="Client certificate for NATS, if it requires one.")
    nats_key: Path | None = Field(None, description="Private key of `nats_cert`.")
    redis_ca: Path | None = Field(
        None, description="CA certificates for Redis (`rediss://`). Empty: the system's."
    )
    redis_cert: Path | None = Field(None, description="Client certificate for Redis, if it requires one.")
    redis_key: Path | None = Field(None, description="Private key of `redis_cert`.")
    replicas: int = Field(1, ge=1, le=5, description="Copies of each stream in a NATS cluster.")
    bus_connect_s: float = Field(10.0, gt=0, description="Time limit for the first connection to NATS.")
    publish_timeout_s: float = Field(
        5.0, gt=0, description="An unacknowledged publish is answered `unavailable` after this time."
    )
    duplicate_window_s: int = Field(
        120, ge=1, description="Time within which a repeated message `id` is not stored again."
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
    health_host: str = Field("", description="Address of the health port. Empty: that of `host`.")
    gateways: int = Field(2, ge=1, le=64, description="Gateways that `tidings up` starts, all on one port.")
    data_dir: Path = Field(Path(".tidings"), description="Folder for the data and secrets of `tidings up`.")
    heartbeat_interval_ms: int = Field(
        25_000, ge=1000, description="Interval of the server's pings; sent to clients in `welcome`."
    )
    idle_timeout_s: float = Field(
        60.0, gt=0, description="A connection that sends nothing for this time, not even a pong, is closed."
    )
    handshake_timeout_s: float = Field(
        10.0, gt=0, description="Time limit for TLS, and again for the request head and its answer."
    )
    tls_cert: Path | None = Field(
        None, description="Certificate chain (PEM) for clients. Empty: no TLS here; a proxy terminates it."
    )
    tls_key: Path | None = Field(None, description="Private key of `tls_cert`.")
    trusted_proxies: CommaList[str] = Field(
        [], description="Addresses or networks of proxies that may name a client's address."
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for",
        description="Header that those proxies set. The other one is ignored: clients can send it.",
    )
    max_head_bytes: int = Field(
        16_384, ge=1024, description="Largest request line and headers together; more is answered 431."
    )
    body_timeout_s: float = Field(30.0, gt=0, description="Time limit for receiving an HTTP request body.")
    write_timeout_s: float = Field(
        30.0, ge=0, description="A client that is behind in reading for this time is disconnected."
    )
    frame_rate: float = Field(
        500.0,
        ge=0,
        description="Frames per second of one connection that are not complete messages (pings, pongs, fragments). Bursts of twice that pass; more closes with 4503.",
    )
    max_message_bytes: int = Field(65_536, ge=1024, description="Largest message of a client.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest HTTP request body.")
    max_custom_data_bytes: int = Field(4096, ge=0, description="Largest `customData` of a user.")
    max_json_depth: int = Field(
        64, ge=1, le=400, description="Deepest nesting of arrays and objects in `content` and `customData`."
    )
    max_rooms_per_connection: int = Field(100, ge=0, description="Most rooms of one connection.")
    message_rate: float = Field(
        100.0, ge=0, description="Messages per second of one connection. Bursts of twice that pass."
    )
    message_bytes_rate: float = Field(
        1_048_576.0,
        ge=0,
        description="Bytes of messages per second of one connection. Bursts of twice that pass. Custom data counts again for each room of the user's connections.",
    )
    presence_rate: float = Field(
        5.0,
        ge=0,
        description="Changes of status and custom data per second of one connection. Bursts of twice that pass.",
    )
    accept_rate: float = Field(
        0.0,
        ge=0,
        description="New connections per second of one gateway; more are answered 503 with Retry-After.",
    )
    request_rate: float = Field(
        0.0,
        ge=0,
        description="HTTP requests per second from one address (IPv6: one /64) to one gateway, except those with an API key. Bursts of twice that pass.",
    )
    connections_per_address: int = Field(
        0, ge=0, description="Most connections from one address (IPv6: one /64) to one gateway."
    )
    connections_per_user: int = Field(0, ge=0, description="Most connections of one user, on all gateways.")
    write_buffer_bytes: int = Field(
        1_048_576, ge=65_536, description="A client with more unsent bytes than this is disconnected."
    )
    room_linger_s: float = Field(5.0, ge=0, description="Time that an empty room keeps its subscription.")
    rpc_timeout_s: float = Field(5.0, gt=0, le=60, description="Time until an unanswered call fails.")
    rpc_per_connection: int = Field(16, ge=1, description="Most unanswered calls of one connection.")
    rpc_concurrency: int = Field(1000, ge=4, description="Most unanswered calls of one gateway.")
    drain_s: float = Field(6.0, ge=0, description="Time over which a stopping gateway disconnects clients.")
    recovery_limit: int = Field(
        300,
        ge=1,
        le=10_000,
        description="Most messages of one recovery. More missed messages mean `recovered: false`.",
    )
    recovery_max_bytes: int = Field(
        1_048_576,
        ge=65_536,
        description="Most bytes of one recovery or one page of history. More missed bytes mean `recovered: false`.",
    )
    history_max_bytes: int = Field(
        536_870_912,
        ge=1_048_576,
        description="Bytes kept of all rooms of one durable namespace; then the oldest messages are deleted. JetStream reserves them in its store, on each server with a copy.",
    )
    inbox_max_bytes: int = Field(
        134_217_728,
        ge=1_048_576,
        description="Bytes kept of all users' direct messages; then the oldest are deleted. Reserved as above.",
    )
    compression: bool = Field(
        False, description="Offer permessage-deflate (without context takeover, so that frames are shared)."
    )
    namespaces: dict[str, Namespace] = Field(
        default_factory=default_namespaces,
        description="Options by room prefix: `[namespaces.NAME]` in TOML, JSON in the environment. `default` and `live` always exist.",
    )

    # --- access ---
    auth: Literal["open", "jwt"] = Field(
        "open", description="`open` admits everyone, on loopback only; `jwt` requires a token."
    )
    open_beyond_loopback: bool = Field(
        False,
        description="Serve `open` on any address: for containers whose port is published on loopback only.",
    )
    session_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs the `session` of anonymous users; the same on all gateways. Generated when empty: sessions then end with the process.",
    )
    jwt_secrets: CommaList[SecretStr] = Field([], description="HS256 secrets. The first signs, all verify.")
    jwks_url: str = Field("", description="URL of the public keys of `jwt_issuer` (https; http on loopback).")
    jwks_issuers: dict[str, str] = Field(
        {},
        description="More issuers, with the URLs of their public keys: `[jwks_issuers]` in TOML, JSON in the environment.",
    )
    jwt_issuer: str = Field(
        "", description="Required `iss` of tokens signed with `jwt_secrets` or a key of `jwks_url`."
    )
    jwt_audience: str = Field("tidings", description="Required `aud`.")
    origins: CommaList[str] = Field(
        [], description="Origins whose pages may connect. Empty: the page's own host only."
    )
    ticket_ttl_s: float = Field(30.0, gt=0, le=300, description="Lifetime of a ticket.")
    ticket_rate: float = Field(
        5.0, ge=0, description="Tickets per second for one user, of one gateway. Bursts of twice that pass."
    )
    api_keys: CommaList[SecretStr] = Field(
        [],
        description="Keys of the server API, plain or as `sha256:HEX` (`tidings key`), each with `;scopes=A+B` or with every scope. Several may be valid at once.",
    )
    default_grants: Annotated[Grants, PlainValidator(parse_grants)] = Field(
        DEFAULT,
        description="Grants of a token without a `tidings` claim: `[default_grants]` in TOML, JSON in the environment.",
    )
    expiry_notice_s: float = Field(
        60.0, ge=0, description="A client receives `token_expiring` this long before its token expires."
    )
    revocation_s: int = Field(
        2_592_000, ge=60, description="Lifetime of a revocation. Tokens that live longer are refused."
    )
    hooks_url: str = Field("", description="Your application's address: https, or http on loopback.")
    hooks: CommaList[HookName] = Field(default_factory=list, description="What your application decides.")
    hooks_secrets: CommaList[SecretStr] = Field(
        default_factory=list, description="Each signs the requests of hooks. Required with `hooks`."
    )
    hooks_timeout_s: float = Field(2.0, gt=0, le=30, description="Time limit of a hook, with its answer.")
    hooks_on_failure: Literal["refuse", "allow"] = Field(
        "refuse", description="Without an answer: refuse as `unavailable`, or go on as without the hook."
    )
    hooks_headers: CommaList[str] = Field(
        default_factory=lambda: ["cookie", "authorization", "user-agent", "x-request-id"],
        description="Headers of a client that the hook `connect` passes on.",
    )
    hooks_concurrency: int = Field(
        64, ge=1, le=1024, description="Requests of hooks at once; 16 times as many wait."
    )
    echo_endpoint: bool | None = Field(None, description="Serve `/ws/echo`. Default: under `open` only.")

    # --- presence ---
    presence_renew_s: float = Field(3.0, gt=0, description="Interval at which a gateway renews its lease.")
    presence_lease_s: float = Field(
        8.0, gt=0, description="A gateway's connections are gone this long after its last renewal."
    )
    presence_grace_s: float = Field(
        5.0, ge=0, description="A user stays online for this time after losing the last connection."
    )

    presence_room_limit: int = Field(
        1000,
        ge=0,
        description="A room with more users sends only counts: no joins, leaves and lists. 0: no limit.",
    )
    presence_online_limit: int = Field(
        10_000,
        ge=0,
        description="With more users online, the channel `presence` sends only counts: no list and no changes. 0: no limit.",
    )
    presence_webhook_urls: CommaList[str] = Field([], description="URLs to post presence events to, signed.")
    presence_webhook_secrets: CommaList[SecretStr] = Field(
        [],
        description="Each of these signs every presence webhook; give two while one is replaced. Required with URLs.",
    )
    presence_webhook_events: CommaList[PresenceEvent] = Field(
        ["user_online", "user_offline", "room_occupied", "room_vacated"],
        description="Presence events that are posted. `member_joined` and `member_left` come only if they are named.",
    )
    presence_webhook_queue: int = Field(
        10_000, ge=1, description="Events kept for webhooks that do not answer; then the oldest are dropped."
    )

    # --- metrics and alerts ---
    rules_file: Path | None = Field(None, description="TOML file with alert rules. Empty: built-in rules.")
    agent_interval_s: float = Field(1.0, gt=0, description="Interval at which the agent samples its machine.")
    agent_proc: Path = Field(
        Path("/proc"),
        description="The machine's `/proc`. In a container, the path where the host's is mounted: then the agent reports the host, not the container's share.",
    )
    webhook_urls: CommaList[str] = Field(
        [], description="URLs to post alerts to, in Alertmanager's webhook format."
    )
    alertmanager_urls: CommaList[str] = Field(
        [], description="Alertmanagers to push alerts to: `http://host:9093`."
    )
    notify_urls: CommaList[SecretStr] = Field(
        [], description="E-mail, chat and other services by apprise URL. Needs the optional part `notify`."
    )
    notify_group_by: CommaList[str] = Field(
        ["metric"],
        description="Fields or labels that alerts of one notification share; `...` sends each alert alone.",
    )
    notify_group_wait_s: float = Field(
        30.0, ge=0, description="Delay between a group's first alert and its first notification."
    )
    notify_group_interval_s: float = Field(
        300.0, ge=0, description="Least time between two notifications about one group."
    )
    notify_repeat_interval_s: float = Field(
        14_400.0,
        gt=0,
        description="A notification about an alert that still fires is repeated after this time.",
    )
    external_url: str = Field("", description="URL of this deployment, for links in notifications.")

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
    """Return a suffix that tells this process from others on this host."""
    return secrets.token_hex(3)


def instance_name(settings: Settings, kind: str) -> str:
    """Return the name of this process: the configured one, or `KIND-HOST-RANDOM`."""
    return settings.instance or f"{kind}-{socket.gethostname().split('.')[0]}-{random_suffix()}"
