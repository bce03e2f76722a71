"""`tidings secrets`: the passwords, keys and certificates of a deployment, one file for each thing that is mounted.

`passwords.json` and the certificates are made once and kept; all else follows from them and from the settings, so the
command is run again after an upgrade, or when the prefix or the namespaces changed, and restarts nobody's passwords.
The folder is for its owner alone. The files in it can be read by others where a container's engine mounts them, because
processes run as users of their own there; only what no container needs cannot.
"""

import datetime
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services.permissions.redis import ROLES as STORE_ROLES
from services.permissions.render import nats_users, redis_users
from services.permissions.roles import OPERATOR, Role
from services.settings import Settings
from tidings_cli import certificates
from tidings_cli.certificates import Pair

NATS_SERVERS = ("nats-1", "nats-2", "nats-3")
REDIS_SERVERS = ("redis-1", "redis-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
NAMESPACE = "tidings"  # where deploy/kubernetes has them
MASTER = "tidings"  # what Sentinels call the Redis that is master

_FOR_CONTAINERS = 0o644
_FOR_THE_OWNER = 0o600
_RENEW = datetime.timedelta(days=30)
_KEPT = "passwords.json"

# What there are passwords for.
PASSWORDS = (
    *(f"nats_{role}" for role in (*Role, OPERATOR)),
    *(f"redis_{role}" for role in STORE_ROLES),
    *("redis_replica", "redis_sentinel", "redis_operator", "sentinel", "jwt", "api_key", "grafana"),
)

# What a replica and a Sentinel need (https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/).
_REPLICA = "-@all +psync +replconf +ping"
_SENTINEL = (
    "resetchannels &* -@all +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill"
)

Fate = Literal["made", "changed", "kept"]


class CannotKeep(Exception):
    """The folder cannot be used; the message says why."""


@dataclass
class SecretFiles:
    """One folder of secrets. `write` says of each file what became of it."""

    folder: Path
    settings: Settings
    site: str
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    rolling: bool = False  # users of NATS for this version and the one before

    def write(self) -> Iterator[tuple[str, Fate]]:
        """Make what is missing, and bring up to date what follows from it.

        Raises:
            CannotKeep: the folder, or what is in it, cannot be read or written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            passwords = self._passwords()
            yield from self._certificates()
            for name, content in derived(passwords, self.settings, rolling=self.rolling).items():
                yield name, self._put(name, content)
        except OSError as fault:
            raise CannotKeep(f"{fault.filename or self.folder}: {fault.strerror or fault}") from fault
        except (ValueError, TypeError) as fault:
            raise CannotKeep(f"{self.folder}: a certificate or key cannot be read: {fault}") from fault

    def _passwords(self) -> dict[str, str]:
        file = self.folder / _KEPT
        kept: object = {}
        if file.exists():
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as fault:
                raise CannotKeep(
                    f"{file} is no JSON: {fault}; without it, all passwords are made anew"
                ) from None
        if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
            raise CannotKeep(f"{file} is no table of passwords; without it, all are made anew")
        # They stand in URLs and in configurations of several kinds: letters and digits, and a letter first.
        passwords = {name: kept.get(name) or f"t{secrets.token_hex(24)}" for name in PASSWORDS}
        self._put(_KEPT, json.dumps(passwords, indent=2) + "\n", _FOR_THE_OWNER)
        return passwords

    def _certificates(self) -> Iterator[tuple[str, Fate]]:
        authority, fate = self._authority()
        yield "ca.pem", fate
        # On Kubernetes agents call the servers of NATS from another namespace.
        nats_hosts = (*NATS_SERVERS, *(f"{host}.{NAMESPACE}" for host in NATS_SERVERS))
        for name, hosts in (("nats", nats_hosts), ("redis", (*REDIS_SERVERS, *SENTINELS))):
            yield f"{name}.pem", self._server(authority, name, [*hosts, "localhost", "127.0.0.1"])
        yield "site.pem", self._site(authority)

    def _authority(self) -> tuple[Pair, Fate]:
        certificate, key = self.folder / "ca.pem", self.folder / "ca.key"
        if certificate.exists():
            # Without its key it is somebody else's, who makes the servers' certificates as well.
            kept = Pair(certificate.read_bytes(), key.read_bytes() if key.exists() else b"")
            if not kept.key or not self._ends_soon(kept.certificate):
                return kept, "kept"
        made = certificates.make_authority(self.now)
        self._put(key.name, made.key.decode(), _FOR_THE_OWNER)
        return made, self._put(certificate.name, made.certificate.decode())

    def _server(self, authority: Pair, name: str, hosts: list[str]) -> Fate:
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        if key.exists() and not self._must_be_made(certificate, authority, hosts):
            return "kept"
        pair = certificates.make_server(authority, hosts, self.now)
        self._put(key.name, pair.key.decode())
        return self._put(certificate.name, pair.certificate.decode())

    def _site(self, authority: Pair) -> Fate:
        """One file with both, as HAProxy reads it."""
        file = self.folder / "site.pem"
        hosts = [self.site] if self.site or not file.exists() else certificates.names_of(file.read_bytes())
        if not self._must_be_made(file, authority, hosts):
            return "kept"
        pair = certificates.make_server(authority, [host or "localhost" for host in hosts], self.now)
        return self._put(file.name, (pair.certificate + pair.key).decode())

    def _must_be_made(self, certificate: Path, authority: Pair, hosts: list[str]) -> bool:
        """Say whether there is none, or ours ends soon or is for other hosts; others' are left alone."""
        if not certificate.exists():
            if not authority.key:
                raise CannotKeep(f"{certificate} is missing, and there is no ca.key to sign one with")
            return True
        kept = certificate.read_bytes()
        return (
            bool(authority.key)
            and certificates.is_signed_by_one_like(kept, authority.certificate)
            and (
                self._ends_soon(kept)
                or certificates.names_of(kept) != hosts
                or not certificates.is_signed_by(kept, authority.certificate)
            )
        )

    def _ends_soon(self, certificate: bytes) -> bool:
        return certificates.expires(certificate) - self.now < _RENEW

    def _put(self, name: str, content: str, mode: int = _FOR_CONTAINERS) -> Fate:
        """Write a file whole or not at all."""
        file = self.folder / name
        before = file.read_text(encoding="utf-8") if file.exists() else None
        if before == content:
            file.chmod(mode)
            return "kept"
        draft = file.with_name(f".{name}.new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FOR_THE_OWNER), "w") as out:
            out.write(content)
        draft.chmod(mode)
        draft.replace(file)
        return "made" if before is None else "changed"


@dataclass(frozen=True, slots=True)
class Pending:
    """What `write` would do, a line for each file that it would touch and each certificate's end."""

    lines: list[str]
    changes: bool


def compare(folder: Path, settings: Settings, site: str, *, rolling: bool = False) -> Pending:
    """Say what `write` would change, by trying it on a copy.

    Raises:
        CannotKeep: the folder, or what is in it, cannot be read.
    """
    if not folder.is_dir():
        raise CannotKeep(f"{folder}: there is no such folder")
    with tempfile.TemporaryDirectory() as place:  # for its owner alone
        copy = Path(place) / "copy"
        try:
            shutil.copytree(folder, copy)
        except (OSError, shutil.Error) as fault:
            raise CannotKeep(f"{folder} cannot be read: {fault}") from fault
        tried = SecretFiles(copy, settings, site, rolling=rolling)
        lines = [f"would be {fate}: {name}" for name, fate in tried.write() if fate != "kept"]
    changes = bool(lines)
    lines += [
        f"{path.name} ends on {certificates.expires(path.read_bytes()):%Y-%m-%d}"
        for path in sorted(folder.glob("*.pem"))
    ]
    return Pending(lines, changes)


def derived(passwords: dict[str, str], settings: Settings, *, rolling: bool = False) -> dict[str, str]:
    """Return the files that follow from the passwords: what servers are configured with, and what processes show them."""
    nats_hosts = [f"{host}:4222" for host in NATS_SERVERS]
    of_nats = {user: passwords[f"nats_{user}"] for user in (*(role.value for role in Role), OPERATOR)}
    sentinels = ",".join(f"{host}:26379" for host in SENTINELS)
    files = {
        f"{user}_nats_url": ",".join(
            [f"tls://{user}:{password}@{nats_hosts[0]}", *(f"tls://{host}" for host in nats_hosts[1:])]
        )
        for user, password in of_nats.items()
    }
    files |= {
        f"{role}_redis_url": f"rediss+sentinel://{role}:{passwords[f'redis_{role}']}@{sentinels}/{MASTER}/0"
        for role in STORE_ROLES
    }
    operator = f"{OPERATOR}:{passwords['redis_operator']}"
    files[f"{OPERATOR}_redis_url"] = f"rediss+sentinel://{operator}@{sentinels}/{MASTER}/0"
    return files | {
        "nats_users.conf": nats_users(settings, of_nats, rolling=rolling),
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
    of_roles = {role.value: passwords[f"redis_{role}"] for role in STORE_ROLES}
    return (
        "user default off\n"
        + redis_users(settings, of_roles)
        + f"user replica on #{_sha256(passwords['redis_replica'])} {_REPLICA}\n"
        + f"user sentinel on #{_sha256(passwords['redis_sentinel'])} {_SENTINEL}\n"
        + f"user {OPERATOR} on #{_sha256(passwords['redis_operator'])} ~* &* +@all\n"
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
