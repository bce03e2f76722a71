"""Permissions as nats-server and redis-server are configured with them."""

import hashlib
import json
from collections.abc import Mapping

from services.permissions import OPERATOR, Role
from services.permissions.nats import SubjectRights, subjects_of
from services.permissions.redis import PROBE_USER, access_of
from services.permissions.redis import ROLES as REDIS_ROLES
from services.settings import Settings


def nats_users(settings: Settings, passwords: Mapping[str, str], *, rolling: bool = False) -> str:
    """Return the `authorization` block. `passwords` are by role and `OPERATOR`; one with `$` first names a variable of
    the server's environment. `rolling` adds the permissions of the previous version.
    """
    users = [f"    {{ user: {OPERATOR}, password: {_secret(passwords[OPERATOR])} }}"]
    users += [
        _nats_user(role, passwords[role], subjects_of(role, settings, rolling=rolling)) for role in Role
    ]
    return "authorization {\n  users = [\n" + "\n".join(users) + "\n  ]\n}\n"


def _nats_user(role: Role, password: str, subjects: SubjectRights) -> str:
    denied = f", deny: {_listed(subjects.unsubscribable)}" if subjects.unsubscribable else ""
    return (
        f"    {{ user: {role}, password: {_secret(password)}, permissions: {{\n"
        f"      publish: {{ allow: {_listed(subjects.publish)} }}\n"
        f"      subscribe: {{ allow: {_listed(subjects.subscribe)}{denied} }}\n"
        f"    }} }}"
    )


def _secret(text: str) -> str:
    return text if text.startswith("$") else json.dumps(text)


def _listed(subjects: tuple[str, ...]) -> str:
    lines = ",\n".join(f"        {json.dumps(subject)}" for subject in subjects)
    return f"[\n{lines}\n      ]"


def redis_users(settings: Settings, passwords: Mapping[str, str]) -> str:
    """Return one `user` line for each role with state in Redis, the passwords hashed, and that of health checks."""
    return PROBE_USER + "".join(
        f"user {role} on #{hashlib.sha256(passwords[role].encode()).hexdigest()} "
        f"{access_of(role, settings).rules}\n"
        for role in REDIS_ROLES
    )


NATS_TEMPLATE_HEAD = """\
# Users of NATS and what each may do. Written by `tidings permissions nats`; do not edit, change the code.
# Include it in nats-server's configuration, and set the variables in the server's environment.
"""
REDIS_TEMPLATE_HEAD = """\
# Users of Redis and what each may do. Written by `tidings permissions redis`; do not edit, change the code.
# Replace each ${…} by that password (`envsubst`), and `include` the result in redis.conf.
user default off
"""


def nats_template(settings: Settings, *, rolling: bool = False) -> str:
    """Return the users for a server whose environment holds the passwords."""
    variables = {role.value: f"$NATS_{role.upper()}_PASSWORD" for role in Role}
    variables[OPERATOR] = "$NATS_OPERATOR_PASSWORD"
    return NATS_TEMPLATE_HEAD + nats_users(settings, variables, rolling=rolling)


def redis_template(settings: Settings) -> str:
    """Return the users with a place for each password."""
    lines = [
        f"user {role} on >${{REDIS_{role.upper()}_PASSWORD}} {access_of(role, settings).rules}\n"
        for role in REDIS_ROLES
    ]
    return REDIS_TEMPLATE_HEAD + PROBE_USER + "".join(lines)
