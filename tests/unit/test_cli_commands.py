"""The console script: commands that need no running gateway."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from services.settings import Settings
from services.telemetry import MetricName
from tidings_cli import configuration, pubsub
from tidings_cli.app import app
from tidings_cli.gateways import socket_url
from tidings_cli.generate import pages

ROOT = Path(__file__).resolve().parents[2]
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner(env={"TERM": "dumb", "COLUMNS": "200"})


def test_help_names_every_command(runner: CliRunner) -> None:
    output = runner.invoke(app, ["--help"]).output
    for command in (
        "up",
        "gateway",
        "presence",
        "metrics",
        "agent",
        "token",
        "pub",
        "sub",
        "check",
        "health",
        "config",
    ):
        assert f" {command} " in output


def test_help_loads_no_server() -> None:
    """So that it is quick: only what declares the options is imported."""
    program = (
        "import sys; from tidings_cli.app import app;"
        "heavy = {'nats', 'redis', 'pydantic', 'websockets', 'structlog', 'jwt', 'psutil'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""


def test_a_token_carries_what_was_asked_for(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_JWT_SECRETS", f"{SECRET},older")
    monkeypatch.setenv("TIDINGS_JWT_ISSUER", "me")
    arguments = [
        "token",
        "--sub",
        "alice",
        "--name",
        "Alice",
        "--ttl",
        "60",
        "--join",
        "a*",
        "--join",
        "b",
        "--direct",
    ]
    token = runner.invoke(app, arguments).output.strip()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="tidings", issuer="me")
    assert (claims["sub"], claims["name"], claims["exp"] - claims["iat"]) == ("alice", "Alice", 60)
    assert claims["tidings"] == {"join": ["a*", "b"], "direct": True}


def test_a_token_without_permissions_leaves_them_to_the_gateway(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDINGS_JWT_SECRETS", SECRET)
    token = runner.invoke(app, ["token", "--sub", "alice"]).output.strip()
    assert "tidings" not in jwt.decode(token, SECRET, algorithms=["HS256"], audience="tidings")


@pytest.mark.parametrize(("secrets", "message"), [("", "is not set"), ("short", "shorter than 32 bytes")])
def test_no_token_without_a_good_secret(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, secrets: str, message: str
) -> None:
    monkeypatch.setenv("TIDINGS_JWT_SECRETS", secrets)
    result = runner.invoke(app, ["token", "--sub", "alice"])
    assert result.exit_code == 1
    assert message in result.output


def test_configuration_is_printed_without_secrets(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_JWT_SECRETS", f"{SECRET},another-secret-that-is-long-enough")
    monkeypatch.setenv("TIDINGS_SESSION_SECRET", "sesame")
    monkeypatch.setenv("TIDINGS_NATS_URL", "nats://u:hidden@a:4222,nats://u:hidden@b:4222")
    for arguments, parse in ((["config"], tomllib.loads), (["config", "--format", "json"], json.loads)):
        output = runner.invoke(app, arguments).output
        for secret in (SECRET, "another-secret", "sesame", "hidden"):
            assert secret not in output
        values = parse(output)
        assert values["jwt_secrets"] == ["***", "***"]
        assert values["nats_url"] == "nats://***@a:4222,nats://***@b:4222"
        assert values["namespaces"]["live"]["durable"] is False


def test_the_printed_configuration_is_accepted_as_a_file(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "printed.toml").write_text(runner.invoke(app, ["config"]).output)
    defaults = Settings()
    monkeypatch.setenv("TIDINGS_CONFIG", str(tmp_path / "printed.toml"))
    assert Settings() == defaults


def test_bad_settings_are_named(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_PORT", "http")
    result = runner.invoke(app, ["config"])
    assert result.exit_code == 2
    assert "TIDINGS_PORT: Input should be a valid integer" in result.output


def test_check_fails_when_nothing_is_configured(runner: CliRunner) -> None:
    result = runner.invoke(app, ["check"])
    assert result.exit_code == 1
    assert "TIDINGS_NATS_URL is not set" in result.output


@pytest.mark.parametrize(
    ("page", "rendered"),
    [("configuration.md", configuration.as_markdown), ("metrics.md", pages.metrics)],
)
def test_reference_pages_are_up_to_date(page: str, rendered: object) -> None:
    assert callable(rendered)
    assert (ROOT / "docs" / page).read_text() == rendered(), "run: make docs"


def test_every_setting_is_described() -> None:
    page = configuration.as_markdown()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"| `TIDINGS_{name.upper()}` |" in page
    assert set(configuration.GROUPS) <= set(Settings.model_fields)


def test_metric_names_follow_the_conventions_of_prometheus() -> None:
    for metric in MetricName:
        declared = metric.value
        assert declared.name.startswith("tidings_")
        assert declared.name.endswith("_total") == (declared.kind == "counter"), declared.name
        assert declared.help.endswith(".")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws?username=me"),
        ("https://chat.example/base/", "wss://chat.example/base/ws?username=me"),
        ("localhost:9", "ws://localhost:9/ws?username=me"),
    ],
)
def test_the_socket_is_found_from_the_page(url: str, expected: str) -> None:
    assert socket_url(url, {"username": "me"}) == expected


def test_a_terminal_shows_and_does_not_obey() -> None:
    assert pubsub.on_one_line({"content": "é\x1b[31m\x9b\u202e"}) == r'{"content":"é\u001b[31m\u009b\u202e"}'


def test_bad_json_content_is_refused(runner: CliRunner) -> None:
    result = runner.invoke(app, ["pub", "lobby", "{", "--json"])
    assert result.exit_code == 1
    assert "the content is not JSON" in result.output


def test_a_missing_gateway_is_reported_clearly(runner: CliRunner) -> None:
    from tidings_cli.local.processes import free_port

    result = runner.invoke(app, ["pub", "lobby", "hi", "--url", f"http://127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "connection refused. Does Tidings run?" in result.output
