"""`TIDINGS_NAME_FILE`: values from files."""

from pathlib import Path

import pytest

from services.lifecycle import load_settings
from services.settings import Settings


def test_a_file_holds_the_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "url"
    file.write_text("nats://gateway:secret@nats:4222\n")
    monkeypatch.setenv("TIDINGS_NATS_URL_FILE", str(file))
    assert Settings().nats_url == "nats://gateway:secret@nats:4222"


def test_lists_and_secrets_come_from_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secrets"
    file.write_text("one-secret,another\r\n")
    monkeypatch.setenv("tidings_jwt_secrets_file", str(file))
    assert [secret.get_secret_value() for secret in Settings().jwt_secrets] == ["one-secret", "another"]


def test_a_file_wins_over_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = tmp_path / "tidings.toml"
    toml.write_text('prefix = "toml"\n')
    (tmp_path / "prefix").write_text("file")
    monkeypatch.setenv("TIDINGS_CONFIG", str(toml))
    monkeypatch.setenv("TIDINGS_PREFIX_FILE", str(tmp_path / "prefix"))
    assert Settings().prefix == "file"


def test_a_setting_that_is_a_file_is_not_read_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_RULES_FILE", "/etc/tidings/rules.toml")
    assert Settings().rules_file == Path("/etc/tidings/rules.toml")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "binary"])
def test_what_cannot_be_read_is_named(
    content: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("TIDINGS_REDIS_URL_FILE", str(file))
    with pytest.raises(SystemExit) as ended:
        load_settings()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"TIDINGS_REDIS_URL_FILE names {file}, which cannot be read" in said
    assert "Traceback" not in said


def test_both_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDINGS_NATS_URL", "nats://secret@nats")
    monkeypatch.setenv("TIDINGS_NATS_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SystemExit):
        load_settings()
    said = capsys.readouterr().err
    assert "TIDINGS_NATS_URL and TIDINGS_NATS_URL_FILE are both set" in said
    assert "secret" not in said
