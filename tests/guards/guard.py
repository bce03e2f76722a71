"""The type of a guard, and the paths of the tests of guards."""

from dataclasses import dataclass
from typing import NamedTuple

HANDSHAKE = "tests/integration/test_threat_handshake.py"
HOOK_CALLER = "tests/integration/hooks/test_hook_caller.py"
HOOKS = "tests/integration/hooks/test_hooks_gateway.py"
WIRE = "tests/integration/test_threat_wire.py"
TLS = "tests/integration/test_threat_tls.py"
CONTRACT = "tests/integration/test_threat_contract.py"
FUZZING = "tests/integration/test_threat_fuzzing.py"
LIVE = "tests/integration/test_auth_live.py"
ROOM_TOKENS = "tests/integration/test_auth_room_tokens.py"
ENDINGS = "tests/integration/test_auth_endings.py"
SERVERS = "tests/integration/test_least_privilege_servers.py"
TOKENS = "tests/unit/test_auth_tokens.py"
JWKS = "tests/unit/test_auth_jwks.py"
AUTHENTICATOR = "tests/unit/test_auth_authenticator.py"
ADDRESSES = "tests/unit/test_limits_addresses.py"
RATES = "tests/unit/test_limits_rates.py"
SANITIZING = "tests/unit/test_limits_sanitizing.py"
PRESENCE = "tests/integration/test_presence_gateway.py"
PUSHES = "tests/unit/api/test_api_metrics.py"
OTLP = "tests/unit/api/test_api_otlp.py"
COST = "tests/unit/test_cost_bounds.py"
CODEC = "tests/unit/test_wire_codec.py"
REPORTS = "tests/unit/test_metrics_validation.py"
KEYS = "tests/integration/test_presence_keys.py"
WEBHOOKS = "tests/integration/test_webhook_sender.py"
BATCHES = "tests/unit/test_presence_batches.py"
FRAMES = "tests/property/test_threat_frames.py"
MESSAGES = "tests/property/test_threat_messages.py"


class Edit(NamedTuple):
    """A piece of source that occurs once in its file, and its replacement."""

    file: str
    guard: str
    without: str


@dataclass(frozen=True, slots=True)
class Guard:
    """What is taken out together, and the tests (`FILE::NAME`) each of which must fail then."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


def guard(name: str, *tests: str, edits: list[tuple[str, str, str]]) -> Guard:
    """Return a guard of these edits (file, guard, what is left) and tests."""
    return Guard(name, tuple(Edit(*edit) for edit in edits), tests)
