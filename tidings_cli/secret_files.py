"""`tidings secrets`: the passwords, keys and certificates of a deployment, one file for each mount.

`passwords.json` and the certificates are made once and kept. All other files follow from them and from the settings: run
the command again after an upgrade, or after a change of the prefix or the namespaces; no password changes.
Only the owner may enter the folder. Its files are readable by all users, because processes in containers run as users of
their own; files that no container needs are not.
"""

import datetime
import hashlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from services.permissions import OPERATOR, Role
from services.permissions.redis import ROLES as STORE_ROLES
from services.permissions.render import nats_users, redis_users
from services.settings import Settings
from tidings_cli import CommandFailed, certificates
from tidings_cli.certificates import KeyPair
from tidings_cli.local.child_server import write_private

NATS_SERVERS = ("nats-1", "nats-2", "nats-3")
REDIS_SERVERS = ("redis-1", "redis-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
NAMESPACE = "tidings"  # of deploy/kubernetes
MASTER = "tidings"  # the Sentinels' name of the master

_FOR_CONTAINERS = 0o644
_FOR_THE_OWNER = 0o600
_RENEW = datetime.timedelta(days=30)
_KEPT = "passwords.json"

# Users and services with a password.
PASSWORDS = (
    *(f"nats_{role}" for role in (*Role, OPERATOR)),
    *(f"redis_{role}" for role in STORE_ROLES),
    *("redis_replica", "redis_sentinel", "redis_operator", "sentinel", "jwt", "api_key", "grafana"),
)

# Permissions of a replica and a Sentinel (https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/).
_REPLICA = "-@all +psync +replconf +ping"
_SENTINEL = (
    "resetchannels &* -@all +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill"
)

FileChange = Literal["made", "changed", "kept"]


@dataclass
class SecretFiles:
    """One folder of secrets. `host` is the public host name."""

    folder: Path
    settings: Settings
    host: str
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    rolling: bool = False  # users of NATS for this version and the one before

    def write(self) -> Iterator[tuple[str, FileChange]]:
        """Make missing files and update derived ones; yield each file's change.

        Raises:
            CommandFailed: the folder, or a file in it, cannot be read or written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            passwords = self._passwords()
            yield from self._certificates()
            for name, content in derived(passwords, self.settings, rolling=self.rolling).items():
                yield name, self._put(name, content)
        except OSError as fault:
            raise CommandFailed(f"{fault.filename or self.folder}: {fault.strerror or fault}") from fault
        except (ValueError, TypeError) as fault:
            raise CommandFailed(f"{self.folder}: a certificate or key cannot be read: {fault}") from fault

    def _passwords(self) -> dict[str, str]:
        file = self.folder / _KEPT
        try:
            kept = msgspec.json.decode(file.read_bytes() if file.exists() else b"{}", type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            raise CommandFailed(
                f"{file} is not a table of passwords: {fault}; without this file, all passwords are replaced"
            ) from None
        # They are used in URLs and in several configuration formats: letters and digits, a letter first.
        passwords = {name: kept.get(name) or f"t{secrets.token_hex(24)}" for name in PASSWORDS}
        self._put(_KEPT, json.dumps(passwords, indent=2) + "\n", _FOR_THE_OWNER)
        return passwords

    def _certificates(self) -> Iterator[tuple[str, FileChange]]:
        authority, change = self._authority()
        yield "ca.pem", change
        # On Kubernetes agents reach the NATS servers from another namespace.
        nats_hosts = (*NATS_SERVERS, *(f"{host}.{NAMESPACE}" for host in NATS_SERVERS))
        for name, hosts in (("nats", nats_hosts), ("redis", (*REDIS_SERVERS, *SENTINELS))):
            yield f"{name}.pem", self._server(authority, name, [*hosts, "localhost", "127.0.0.1"])
        yield "site.pem", self._public(authority)

    def _authority(self) -> tuple[KeyPair, FileChange]:
        certificate, key = self.folder / "ca.pem", self.folder / "ca.key"
        if certificate.exists():
            # Without its key it is a foreign authority, which makes the servers' certificates too.
            kept = KeyPair(certificate.read_bytes(), key.read_bytes() if key.exists() else b"")
            if not kept.key or not self._expires_soon(kept.certificate):
                return kept, "kept"
        made = certificates.make_authority(self.now)
        self._put(key.name, made.key.decode(), _FOR_THE_OWNER)
        return made, self._put(certificate.name, made.certificate.decode())

    def _server(self, authority: KeyPair, name: str, hosts: list[str]) -> FileChange:
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        if key.exists() and not self._needs_renewal(certificate, authority, hosts):
            return "kept"
        pair = certificates.make_server(authority, hosts, self.now)
        self._put(key.name, pair.key.decode())
        return self._put(certificate.name, pair.certificate.decode())

    def _public(self, authority: KeyPair) -> FileChange:
        """Make the public certificate: one file with its key, as HAProxy reads it."""
        file = self.folder / "site.pem"
        hosts = [self.host] if self.host or not file.exists() else certificates.names_of(file.read_bytes())
        if not self._needs_renewal(file, authority, hosts):
            return "kept"
        pair = certificates.make_server(authority, [host or "localhost" for host in hosts], self.now)
        return self._put(file.name, (pair.certificate + pair.key).decode())

    def _needs_renewal(self, certificate: Path, authority: KeyPair, hosts: list[str]) -> bool:
        """Return whether it is missing, or ours and expires soon or has other hosts. Foreign ones are kept."""
        if not certificate.exists():
            if not authority.key:
                raise CommandFailed(f"{certificate} is missing, and there is no ca.key to sign one with")
            return True
        kept = certificate.read_bytes()
        return (
            bool(authority.key)
            and certificates.has_issuer_name_of(kept, authority.certificate)
            and (
                self._expires_soon(kept)
                or certificates.names_of(kept) != hosts
                or not certificates.is_signed_by(kept, authority.certificate)
            )
        )

    def _expires_soon(self, certificate: bytes) -> bool:
        return certificates.expires(certificate) - self.now < _RENEW

    def _put(self, name: str, content: str, mode: int = _FOR_CONTAINERS) -> FileChange:
        file = self.folder / name
        before = file.read_text(encoding="utf-8") if file.exists() else None
        if before == content:
            file.chmod(mode)
            return "kept"
        write_private(file, content, mode)
        return "made" if before is None else "changed"


def compare(
    folder: Path, settings: Settings, host: str, *, rolling: bool = False
) -> tuple[list[str], list[str]]:
    """Find what `write` would change, on a copy of the folder. Return a line for each, and each certificate's end.

    Raises:
        CommandFailed: the folder, or a file in it, cannot be read.
    """
    if not folder.is_dir():
        raise CommandFailed(f"{folder}: no such folder")
    with tempfile.TemporaryDirectory() as temporary:  # for its owner alone
        copy = Path(temporary) / "copy"
        try:
            shutil.copytree(folder, copy)
        except (OSError, shutil.Error) as fault:
            raise CommandFailed(f"{folder} cannot be read: {fault}") from fault
        tried = SecretFiles(copy, settings, host, rolling=rolling)
        changes = [f"would be {change}: {name}" for name, change in tried.write() if change != "kept"]
    ends = [
        f"{path.name} ends on {certificates.expires(path.read_bytes()):%Y-%m-%d}"
        for path in sorted(folder.glob("*.pem"))
    ]
    return changes, ends


def derived(passwords: dict[str, str], settings: Settings, *, rolling: bool = False) -> dict[str, str]:
    """Return the files derived from the passwords: configurations of servers, and credentials of processes."""
    nats_hosts = [f"{host}:4222" for host in NATS_SERVERS]
    nats_passwords = {user: passwords[f"nats_{user}"] for user in (*(role.value for role in Role), OPERATOR)}
    sentinels = ",".join(f"{host}:26379" for host in SENTINELS)
    files = {
        f"{user}_nats_url": ",".join(
            [f"tls://{user}:{password}@{nats_hosts[0]}", *(f"tls://{host}" for host in nats_hosts[1:])]
        )
        for user, password in nats_passwords.items()
    }
    files |= {
        f"{role}_redis_url": f"rediss+sentinel://{role}:{passwords[f'redis_{role}']}@{sentinels}/{MASTER}/0"
        for role in STORE_ROLES
    }
    operator = f"{OPERATOR}:{passwords['redis_operator']}"
    files[f"{OPERATOR}_redis_url"] = f"rediss+sentinel://{operator}@{sentinels}/{MASTER}/0"
    return files | {
        "nats_users.conf": nats_users(settings, nats_passwords, rolling=rolling),
        "redis_users.acl": _redis_acl(passwords, settings),
        "redis_replication.conf": f"masteruser replica\nmasterauth {passwords['redis_replica']}\n",
        "sentinel_passwords.conf": (
            f"requirepass {passwords['sentinel']}\n"
            f"sentinel sentinel-pass {passwords['sentinel']}\n"
            f"sentinel auth-user {MASTER} sentinel\n"
            f"sentinel auth-pass {MASTER} {passwords['redis_sentinel']}\n"
        ),
        "redis_sentinel_login": f":{passwords['sentinel']}",
        "jwt_secrets": passwords["jwt"],
        "api_keys": f"sha256:{_sha256(passwords['api_key'])}",
        "grafana_password": passwords["grafana"],
    }


def _redis_acl(passwords: dict[str, str], settings: Settings) -> str:
    role_passwords = {role.value: passwords[f"redis_{role}"] for role in STORE_ROLES}
    return (
        "user default off\n"
        + redis_users(settings, role_passwords)
        + f"user replica on #{_sha256(passwords['redis_replica'])} {_REPLICA}\n"
        + f"user sentinel on #{_sha256(passwords['redis_sentinel'])} {_SENTINEL}\n"
        + f"user {OPERATOR} on #{_sha256(passwords['redis_operator'])} ~* &* +@all\n"
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
