"""Rules about contradictory settings, and the messages for unreadable ones."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.lifecycle import load_settings
from services.logs.redaction import clean_text
from services.permissions import Role
from services.settings import Settings
from services.settings_problems import problems_of, unknown_variables
from tidings_cli.app import app
from tidings_cli.local.up import SECRETS, withheld_from

LONG = "s" * 32
JWT = {"auth": "jwt", "jwt_secrets": LONG}

# What is set, for which processes that is a problem, and the setting that is named.
CASES: list[tuple[dict[str, Any], set[Role], str]] = [
    ({"auth": "jwt"}, {Role.GATEWAY}, "TIDINGS_AUTH"),
    ({"jwt_secrets": f"{LONG},short"}, {Role.GATEWAY}, "TIDINGS_JWT_SECRETS"),
    ({"jwks_url": "https://idp/keys"}, {Role.GATEWAY}, "TIDINGS_JWT_ISSUER"),
    ({"jwks_url": "http://idp/keys", "jwt_issuer": "i"}, {Role.GATEWAY}, "TIDINGS_JWKS_URL"),
    ({"jwks_issuers": {"i": "ftp://idp"}}, {Role.GATEWAY}, "TIDINGS_JWKS_ISSUERS"),
    ({"host": "0.0.0.0"}, {Role.GATEWAY}, "TIDINGS_HOST"),  # noqa: S104
    ({"host": "chat.example"}, {Role.GATEWAY}, "TIDINGS_HOST"),
    ({"origins": "app.example"}, {Role.GATEWAY}, "TIDINGS_ORIGINS"),
    ({"origins": "https://*.example"}, {Role.GATEWAY}, "TIDINGS_ORIGINS"),
    ({"origins": "https://app.example/path"}, {Role.GATEWAY}, "TIDINGS_ORIGINS"),
    ({"api_keys": "key;scopes=publsh"}, {Role.GATEWAY}, "TIDINGS_API_KEYS"),
    ({"api_keys": "sha256:beef"}, {Role.GATEWAY}, "TIDINGS_API_KEYS"),
    ({"api_keys": ";scopes=read"}, {Role.GATEWAY}, "TIDINGS_API_KEYS"),
    ({"presence_lease_s": 3, "presence_renew_s": 3}, {Role.GATEWAY}, "TIDINGS_PRESENCE_LEASE_S"),
    ({"presence_webhook_urls": "https://h/in"}, {Role.PRESENCE}, "TIDINGS_PRESENCE_WEBHOOK_SECRETS"),
    ({"presence_webhook_urls": "h/in", "presence_webhook_secrets": LONG}, {Role.PRESENCE}, "TIDINGS_PRESENCE_WEBHOOK_URLS"),
    ({"hooks": "connect", "hooks_secrets": LONG}, {Role.GATEWAY}, "TIDINGS_HOOKS_URL"),
    ({"hooks": "connect", "hooks_secrets": LONG, "hooks_url": "http://app.example/cr3t"}, {Role.GATEWAY}, "TIDINGS_HOOKS_URL"),
    ({"hooks": "connect", "hooks_secrets": LONG, "hooks_url": "https://u:cr3t@app.example"}, {Role.GATEWAY}, "TIDINGS_HOOKS_URL"),
    ({"hooks": "join,publish", "hooks_url": "https://app.example/cr3t"}, {Role.GATEWAY}, "TIDINGS_HOOKS_SECRETS"),
    ({"webhook_urls": "https://h/in,htp://h"}, {Role.METRICS}, "TIDINGS_WEBHOOK_URLS"),
    ({"alertmanager_urls": "http://h:port"}, {Role.METRICS}, "TIDINGS_ALERTMANAGER_URLS"),
    ({"nats_url": "nats://u:se/cr3t@h"}, set(Role), "TIDINGS_NATS_URL"),
    ({"redis_url": "redis://u:se/cr3t@h"}, set(Role), "TIDINGS_REDIS_URL"),
    ({"redis_url": "redis+sentinel://h"}, set(Role), "TIDINGS_REDIS_URL"),
    ({"traces_endpoint": "collector:4318"}, set(Role), "TIDINGS_TRACES_ENDPOINT"),
    ({"tls_cert": "c.pem"}, set(Role), "TIDINGS_TLS_KEY"),
    ({"nats_key": "k.pem"}, set(Role), "TIDINGS_NATS_CERT"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "roles", "setting"), CASES)
def test_what_cannot_work_is_named(given: dict[str, Any], roles: set[Role], setting: str) -> None:
    settings = Settings(**given)
    (problem,) = problems_of(settings)
    assert problem.setting == setting
    assert problem.what
    assert problem.advice
    assert {role for role in Role if problems_of(settings, role)} == roles
    said = str(problem)
    assert clean_text(said) == said  # it is printed whole
    for secret in (LONG, "short", "cr3t", "publsh", "beef"):
        assert secret not in said


@pytest.mark.parametrize(
    "given",
    [
        {},
        JWT,
        {**JWT, "host": "0.0.0.0", "api_keys": f"sha256:{'ab' * 32};scopes=publish+read,plain"},  # noqa: S104
        {"host": "0.0.0.0", "open_beyond_loopback": True},  # noqa: S104
        {"auth": "jwt", "jwks_url": "http://127.0.0.1:8000/keys", "jwt_issuer": "i", "origins": "https://app.example:8443"},
        {"nats_url": "nats://u:p%2Fq@a:1,b:2", "redis_url": "rediss+sentinel://:p@a,b:1/NAME/0"},
        {"redis_url": "unix:///run/redis.sock?db=1", "traces_endpoint": "http://c:4318"},
        {"presence_webhook_urls": "https://h/in", "presence_webhook_secrets": LONG, "webhook_urls": "http://h"},
        {"hooks": "connect,join,publish", "hooks_url": "http://127.0.0.1:8000/in", "hooks_secrets": f"{LONG},{LONG}"},
        {"hooks_url": "http://app.example"},
    ],
)  # fmt: skip
def test_what_works_has_no_problem(given: dict[str, Any]) -> None:
    assert problems_of(Settings(**given)) == []


def test_all_problems_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_AUTH", "jwt")
    monkeypatch.setenv("TIDINGS_ORIGINS", "nowhere")
    monkeypatch.setenv("TIDINGS_WEBHOOK_URLS", "nothing")
    result = CliRunner().invoke(app, ["config"])
    assert result.exit_code == 2
    assert {line.partition(":")[0] for line in result.stderr.splitlines()} == {
        "TIDINGS_AUTH",
        "TIDINGS_ORIGINS",
        "TIDINGS_WEBHOOK_URLS",
    }
    assert 'auth = "jwt"' in result.stdout


def test_unknown_variables_are_named_with_what_was_meant() -> None:
    environment = {
        "TIDINGS_JWT_SECRET": "", "TIDINGS_PROT": "", "tidings_port": "", "TIDINGS_NATS_URL_FILE": "",
        "TIDINGS_TOKEN": "", "TIDINGS_CONFIG": "", "TIDINGS_WHATEVER_THAT_IS": "", "PATH": "",
    }  # fmt: skip
    assert unknown_variables(environment) == {
        "TIDINGS_JWT_SECRET": "TIDINGS_JWT_SECRETS",
        "TIDINGS_PROT": "TIDINGS_PORT",
        "TIDINGS_WHATEVER_THAT_IS": "",
    }


def test_a_key_for_an_unknown_scope_is_not_made() -> None:
    result = CliRunner().invoke(app, ["key", "--scopes", "read+publsh"])
    assert result.exit_code == 2
    assert "'publsh' is no scope; there are publish" in result.output
    assert "TIDINGS_API_KEYS" not in result.output


@pytest.mark.parametrize(
    ("text", "variables", "said"),
    [
        ('auht = "jwt"\n', {}, "{file}: `auht` is no setting; did you mean auth?"),
        ("[namespaces.default]\nhistroy_size = 3\n", {}, "{file}: `namespaces.default.histroy_size` is no setting; did you mean history_size?"),
        ("a = 1\nb = = 2\n", {}, "{file}: Invalid value (at line 2, column 5)"),
        ("max_message_bytes = 3\n", {}, "{file}: `max_message_bytes`: Input should be greater than or equal to 1024"),
        ("port = 1\n", {"TIDINGS_PORT": "http"}, "TIDINGS_PORT: Input should be a valid integer"),
        ("[default_grants]\njion = ['*']\n", {}, "{file}: `default_grants`: Value error, Object contains unknown field `jion`"),
        ("", {"TIDINGS_DEFAULT_GRANTS": '{"join":[""]}'}, "TIDINGS_DEFAULT_GRANTS: Value error, a pattern must not be empty"),
        ("", {"TIDINGS_NAMESPACES": "{x"}, "TIDINGS_NAMESPACES: is not JSON: Expecting property name"),
        ("", {"TIDINGS_NAMESPACES": '{"a":{"durabel":true}}'}, "TIDINGS_NAMESPACES.a.durabel is no setting; did you mean durable?"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_as_it_was_written(
    text: str,
    variables: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(text)
    monkeypatch.setenv("TIDINGS_CONFIG", str(file))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        load_settings()
    assert ended.value.code == 2
    assert said.format(file=file) in capsys.readouterr().err


def test_every_setting_that_may_hold_a_secret_belongs_to_a_process() -> None:
    secret = {
        name
        for name, field in Settings.model_fields.items()
        if "Secret" in str(field.annotation) or "url" in name or name == "jwks_issuers"
    }
    elsewhere = {"nats_url", "redis_url", "external_url"}  # by role, and no secret
    assert secret - elsewhere == frozenset().union(*SECRETS.values())
    for role in Role:
        assert "TIDINGS_NATS_URL_FILE" in withheld_from(role)
        assert not {f"TIDINGS_{name.upper()}" for name in SECRETS[role]} & withheld_from(role)
