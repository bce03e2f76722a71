"""`tidings secrets`: generated once, kept, and updated where they depend on settings."""

import datetime
import json
import ssl
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.servers import parse_nats_url, parse_redis_url
from services.settings import Settings
from tests.support.requires import need
from tidings_cli import CommandFailed, certificates
from tidings_cli.app import app
from tidings_cli.secret_files import SecretFiles, compare

Make = Callable[..., dict[str, str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(site: str = "", *, later_days: float = 0, **settings: object) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=later_days)
        return dict(SecretFiles(tmp_path / "secrets", Settings(**settings), site, now).write())  # type: ignore[arg-type]

    return make


def test_a_second_run_keeps_all_of_it(make: Make, tmp_path: Path) -> None:
    assert set(make("chat.example").values()) == {"made"}
    before = {file.name: file.read_bytes() for file in (tmp_path / "secrets").iterdir()}
    assert set(make().values()) == {"kept"}
    assert {file.name: file.read_bytes() for file in (tmp_path / "secrets").iterdir()} == before


def test_only_the_owner_gets_into_the_folder(make: Make, tmp_path: Path) -> None:
    make()
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert modes.pop("ca.key") == modes.pop("passwords.json") == 0o600
    assert set(modes.values()) == {0o644}  # processes in containers are other users


def test_users_follow_the_settings_and_passwords_are_kept(make: Make, tmp_path: Path) -> None:
    make()
    folder = tmp_path / "secrets"
    url = (folder / "gateway_nats_url").read_text()
    fates = make(prefix="shop")
    assert {name for name, fate in fates.items() if fate == "changed"} == {
        "nats_users.conf",
        "redis_users.acl",
    }
    assert "shop.in.>" in (folder / "nats_users.conf").read_text()
    assert (folder / "gateway_nats_url").read_text() == url


def test_urls_are_what_processes_read(make: Make, tmp_path: Path) -> None:
    make()
    passwords = json.loads((tmp_path / "secrets" / "passwords.json").read_text())
    nats = parse_nats_url((tmp_path / "secrets" / "gateway_nats_url").read_text())
    assert nats.servers == ["tls://nats-1:4222", "tls://nats-2:4222", "tls://nats-3:4222"]
    assert (nats.user, nats.password) == ("gateway", passwords["nats_gateway"])
    redis = parse_redis_url((tmp_path / "secrets" / "metrics_redis_url").read_text())
    assert (redis.kind, redis.tls, redis.master, len(redis.nodes)) == ("sentinel", True, "tidings", 3)
    assert (redis.username, redis.password) == ("metrics", passwords["redis_metrics"])


def test_no_password_is_used_twice(make: Make, tmp_path: Path) -> None:
    make()
    passwords = json.loads((tmp_path / "secrets" / "passwords.json").read_text()).values()
    assert len(set(passwords)) == len(passwords)
    assert all(len(password) >= 32 for password in passwords)


@pytest.mark.parametrize("name", ["nats", "redis", "site"])
def test_certificates_are_of_the_authority(name: str, make: Make, tmp_path: Path) -> None:
    make("chat.example")
    folder = tmp_path / "secrets"
    key = folder / f"{name}.key" if name != "site" else None
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / f"{name}.pem", key)
    openssl = need("openssl")
    done = subprocess.run(
        [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", f"{name}.pem"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_certificates_are_renewed_before_they_end(make: Make) -> None:
    make("chat.example")
    assert set(make(later_days=700).values()) == {"kept"}
    renewed = {name for name, fate in make(later_days=800).items() if fate == "changed"}
    assert renewed == {"nats.pem", "redis.pem", "site.pem"}
    renewed = {name for name, fate in make(later_days=3640).items() if fate == "changed"}
    assert renewed == {"ca.pem", "nats.pem", "redis.pem", "site.pem"}


def test_another_site_gets_another_certificate(make: Make, tmp_path: Path) -> None:
    make()
    assert certificates.names_of((tmp_path / "secrets" / "site.pem").read_bytes()) == ["localhost"]
    assert make("chat.example")["site.pem"] == "changed"
    assert certificates.names_of((tmp_path / "secrets" / "site.pem").read_bytes()) == ["chat.example"]
    assert make("192.0.2.7")["site.pem"] == "changed"


def test_certificates_of_others_are_left_alone(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make()
    now = datetime.datetime.now(datetime.UTC)
    other = certificates.make_server(certificates.make_authority(now), ["chat.example"], now)
    (folder / "ca.key").unlink()  # an authority that is kept elsewhere
    (folder / "site.pem").write_bytes(other.certificate + other.key)
    fates = make("elsewhere.example", later_days=5000)
    assert {fates[name] for name in ("ca.pem", "nats.pem", "redis.pem", "site.pem")} == {"kept"}
    (folder / "redis.pem").unlink()
    with pytest.raises(CommandFailed, match=r"redis\.pem is missing"):
        make()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("passwords.json", "not json", "is not a table of passwords: JSON is malformed"),
        ("passwords.json", "[1]", "is not a table of passwords"),
        ("ca.pem", "rubbish", "cannot be read"),
    ],
)
def test_failed_reads_are_reported(name: str, content: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / name).write_text(content)
    (folder / "ca.key").write_text("x")
    done = CliRunner().invoke(app, ["secrets", str(folder)])
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output


def test_the_command_reports_each_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["secrets", str(tmp_path / "secrets")])
    assert done.exit_code == 0
    assert "made    gateway_nats_url\n" in done.output
    passwords = json.loads((tmp_path / "secrets" / "passwords.json").read_text())
    assert not any(password in done.output for password in passwords.values())
    file = tmp_path / "file"
    file.touch()
    assert CliRunner().invoke(app, ["secrets", str(file)]).exit_code == 1


def test_check_reports_changes_and_makes_none(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    with pytest.raises(CommandFailed, match="no such folder"):
        compare(folder, Settings(), "")
    for _ in SecretFiles(folder, Settings(), "chat.example").write():
        pass
    before = {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}
    changes, ends = compare(folder, Settings(), "")
    assert not changes
    assert [line.partition(" ")[0] for line in ends] == ["ca.pem", "nats.pem", "redis.pem", "site.pem"]
    changes, _ = compare(folder, Settings(prefix="other"), "")
    assert "would be changed: nats_users.conf" in changes
    (folder / "redis_users.acl").unlink()
    assert "would be made: redis_users.acl" in compare(folder, Settings(), "")[0]
    del before["redis_users.acl"]
    assert {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()} == before
