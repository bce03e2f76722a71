"""The guards of `docs/security.md`: where each stands, and the tests that fail without it.

Where a second guard stands behind the first, both are taken out (`edits` are made together). What cannot be taken
out, because nothing is there but the absence of a mistake, is in `NOT_TAKEN_OUT`.
"""

from dataclasses import dataclass
from typing import NamedTuple

HANDSHAKE = "tests/integration/test_threat_handshake.py"
WIRE = "tests/integration/test_threat_wire.py"
TLS = "tests/integration/test_threat_tls.py"
CONTRACT = "tests/integration/test_threat_contract.py"
FUZZING = "tests/integration/test_threat_fuzzing.py"
LIVE = "tests/integration/test_auth_live.py"
SERVERS = "tests/integration/test_least_privilege_servers.py"
TOKENS = "tests/unit/test_auth_tokens.py"
JWKS = "tests/unit/test_auth_jwks.py"
AUTHENTICATOR = "tests/unit/test_auth_authenticator.py"
ADDRESSES = "tests/unit/test_limits_addresses.py"
RATES = "tests/unit/test_limits_rates.py"
SANITIZING = "tests/unit/test_limits_sanitizing.py"
FRAMES = "tests/property/test_threat_frames.py"
MESSAGES = "tests/property/test_threat_messages.py"


class Edit(NamedTuple):
    """One piece of source, which stands once in its file, and what replaces it."""

    file: str
    guard: str
    without: str


@dataclass(frozen=True, slots=True)
class Guard:
    """What is taken out together, and the tests (`FILE::NAME`) each of which must fail then."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


def _guard(name: str, *tests: str, edits: list[tuple[str, str, str]]) -> Guard:
    return Guard(name, tuple(Edit(*edit) for edit in edits), tests)


GUARDS = (
    # --- pages ---
    _guard(
        "the page's origin, on upgrades",
        f"{HANDSHAKE}::test_cross_site_websocket_hijack",
        edits=[("gateway/ws/endpoints.py", "gateway.authenticator.origins.check(headers)", "pass")],
    ),
    _guard(
        "the page's origin, everywhere",
        f"{HANDSHAKE}::test_cross_site_websocket_hijack",
        "tests/unit/test_auth_origins.py::test_cross_site_websocket_hijack",
        edits=[
            (
                "gateway/auth/origins.py",
                'raise AuthRefused(ErrorCode.FORBIDDEN, "pages of this origin may not connect; see TIDINGS_ORIGINS")',
                "return origin",
            )
        ],
    ),
    _guard(
        "CORS for one origin",
        f"{HANDSHAKE}::test_cors_is_exact",
        edits=[
            (
                "gateway/api/headers.py",
                '{"access-control-allow-origin": foreign,',
                '{"access-control-allow-origin": "*",',
            )
        ],
    ),
    _guard(
        "the host's name under `open`",
        f"{HANDSHAKE}::test_dns_rebinding",
        edits=[
            (
                "gateway/auth/origins.py",
                "if self._local_names_only and host and not self._is_local(host):",
                "if False:",
            )
        ],
    ),
    # --- tokens ---
    _guard(
        "signatures, and keys by algorithm",
        f"{TOKENS}::test_alg_none",
        edits=[
            (
                "gateway/auth/tokens.py",
                'source = self._secrets if header.get("alg") == "HS256" else self._public',
                "source = self._secrets",
            ),
            (
                "gateway/auth/tokens.py",
                'return self._candidates if header.get("alg") == "HS256" else ()',
                "return self._candidates",
            ),
            (
                "gateway/auth/tokens.py",
                'options={"require": [',
                'options={"verify_signature": False, "require": [',
            ),
        ],
    ),
    _guard(
        "one algorithm for a key",
        f"{TOKENS}::test_the_algorithm_belongs_to_the_key",
        f"{JWKS}::test_the_token_does_not_choose_the_algorithm",
        edits=[
            (
                "gateway/auth/tokens.py",
                "algorithms=[candidate.algorithm],",
                'algorithms=["none", "HS256", "HS384", "HS512", "RS256", "RS512", "PS256"],',
            )
        ],
    ),
    _guard(
        "expiry",
        f"{TOKENS}::test_an_expired_token",
        edits=[
            ("gateway/auth/tokens.py", 'options={"require": [', 'options={"verify_exp": False, "require": [')
        ],
    ),
    _guard(
        "audience",
        f"{TOKENS}::test_another_audience",
        edits=[("gateway/auth/tokens.py", '"verify_aud": self._audience is not None', '"verify_aud": False')],
    ),
    _guard(
        "issuer",
        f"{TOKENS}::test_another_issuer",
        edits=[("gateway/auth/tokens.py", "issuer=candidate.issuer or None,", "issuer=None,")],
    ),
    _guard(
        "`crit`",
        f"{TOKENS}::test_a_properly_signed_crit_is_refused",
        edits=[("gateway/auth/tokens.py", 'if "crit" in header:', "if False:")],
    ),
    _guard(
        "keys by issuer",
        f"{JWKS}::test_forged_issuer_makes_no_request",
        f"{JWKS}::test_same_kid_under_two_issuers",
        edits=[
            (
                "gateway/auth/jwks.py",
                "keys = self._issuers.get(issuer) if isinstance(issuer, str) else None",
                "keys = next(iter(self._issuers.values()))",
            )
        ],
    ),
    _guard(
        "a pause between two fetches",
        f"{JWKS}::test_made_up_kids_cost_one_request_in_a_while_and_no_memory",
        edits=[
            (
                "gateway/auth/jwks.py",
                "if self._fetching is None and now - self._tried_at >= COOLDOWN_S:",
                "if self._fetching is None:",
            )
        ],
    ),
    _guard(
        "one fetch for all who wait",
        f"{JWKS}::test_many_at_once_cost_one_request",
        edits=[
            (
                "gateway/auth/jwks.py",
                "if self._fetching is None and now - self._tried_at >= COOLDOWN_S:",
                "if True:",
            )
        ],
    ),
    _guard(
        "the size of a set of keys",
        f"{JWKS}::test_fetching_fails",
        edits=[("gateway/auth/jwks_fetch.py", "if len(body) > MAX_BYTES:", "if False:")],
    ),
    _guard(
        "the time to fetch a set of keys",
        f"{JWKS}::test_a_document_that_drips_is_given_up",
        edits=[
            ("gateway/auth/jwks_fetch.py", "if time.monotonic() > deadline:", "if False:"),
            ("gateway/auth/jwks_fetch.py", "asyncio.timeout(timeout_s)", "asyncio.timeout(None)"),
        ],
    ),
    _guard(
        "no token in a URL",
        f"{HANDSHAKE}::test_token_in_url",
        f"{AUTHENTICATOR}::TestTokens::test_token_in_url",
        edits=[
            (
                "gateway/auth/authenticator.py",
                "if any(name in query for name in _TOKEN_PARAMETERS):",
                'if query.get("token"):\n            return await self._tokens.verify(query["token"])\n        if False:',
            )
        ],
    ),
    _guard(
        "a ticket is taken",
        f"{HANDSHAKE}::test_ticket_reuse",
        edits=[
            (
                "gateway/auth/tickets.py",
                "if entry is None or not await self._bucket.take(key, entry.revision):",
                "if entry is None:",
            )
        ],
    ),
    # --- rights that end ---
    _guard(
        "the end of a token ends its connection",
        f"{LIVE}::test_an_expired_token_ends_the_connection_after_a_warning",
        edits=[("gateway/stay.py", "self._guest.end(CloseCode.TOKEN_EXPIRED)", "pass")],
    ),
    _guard(
        "permissions, again",
        f"{LIVE}::test_a_renewal_checks_all_permissions_again",
        edits=[
            (
                "gateway/session/session.py",
                "rooms = [room for room in self.rooms if not grants.may_join(room)]",
                "rooms: list[str] = []",
            )
        ],
    ),
    _guard(
        "a renewal is for the same user",
        f"{LIVE}::test_a_refused_renewal_changes_nothing",
        edits=[("gateway/auth/authenticator.py", "if renewed.user_id != identity.user_id:", "if False:")],
    ),
    _guard(
        "revocations end connections",
        f"{LIVE}::test_a_revoked_token_is_one_token",
        edits=[("gateway/core.py", "client.end(CloseCode.BAD_TOKEN)", "pass")],
    ),
    _guard(
        "revocations keep out",
        f"{LIVE}::test_a_revoked_user_is_out_everywhere_within_a_second",
        edits=[("gateway/auth/authenticator.py", "if self.revocations.covers(identity, now):", "if False:")],
    ),
    _guard(
        "revocations are read at start",
        f"{LIVE}::test_a_gateway_that_starts_later_knows",
        edits=[("gateway/auth/revocation_log.py", "seq, complete = 1, False", "seq, complete = 1, True")],
    ),
    # --- names and content ---
    _guard(
        "names are escaped on the bus",
        f"{HANDSHAKE}::test_subject_injection",
        edits=[
            (
                "services/wire/names.py",
                'return "".join([_TOKEN_OF_BYTE[b] for b in name.encode()])',
                "return name",
            )
        ],
    ),
    _guard(
        "names are composed",
        f"{HANDSHAKE}::test_room_name_confusion",
        edits=[("services/wire/names.py", 'text = unicodedata.normalize("NFC", text)', "pass")],
    ),
    _guard(
        "names without control characters",
        f"{HANDSHAKE}::test_names_that_are_none",
        edits=[
            ("services/wire/names.py", 'if any(unicodedata.category(c) == "Cc" for c in text):', "if False:")
        ],
    ),
    _guard(
        "the depth of content",
        f"{HANDSHAKE}::test_json_bomb",
        edits=[("services/wire/depth.py", 'if json.count(b"[") + json.count(b"{") <= limit:', "if True:")],
    ),
    _guard(
        "an allow-list of HTML",
        f"{SANITIZING}::test_nothing_runs",
        edits=[("gateway/delivery/sanitizing.py", "return nh3.clean(value)", "return value")],
    ),
    _guard(
        "a search without backtracking",
        f"{HANDSHAKE}::test_redos_in_patterns",
        edits=[
            (
                "gateway/auth/grants.py",
                'wildcards = tuple(_wildcard(pattern).matches for pattern in patterns if "*" in pattern)',
                'import re\n    wildcards = tuple(re.compile(p.replace("*", ".*")).fullmatch for p in patterns if "*" in p)',
            )
        ],
    ),
    _guard(
        "log lines are cleaned",
        f"{HANDSHAKE}::test_log_injection_and_log_cleanliness",
        edits=[
            (
                "services/logs/redaction.py",
                '_UNPRINTABLE.sub("", text))\n\n\ndef clean_traceback',
                "text)\n\n\ndef clean_traceback",
            )
        ],
    ),
    # --- the wire ---
    _guard(
        "the size of a message",
        f"{WIRE}::test_oversize",
        f"{WIRE}::test_oversize_in_fragments",
        f"{WIRE}::test_deflate_bomb",
        f"{FRAMES}::test_any_bytes_in_any_pieces",
        edits=[("gateway/ws/protocol.py", "max_size=settings.max_message_bytes,", "max_size=None,")],
    ),
    _guard(
        "the rate of frames",
        f"{WIRE}::test_fragment_flood",
        f"{WIRE}::test_empty_fragment_flood",
        f"{WIRE}::test_control_frame_flood",
        edits=[("gateway/ws/protocol.py", "if not self._frames.take(now):", "if True:")],
    ),
    _guard(
        "the time for a head",
        f"{WIRE}::test_slow_loris",
        f"{WIRE}::test_a_connection_that_says_nothing",
        f"{WIRE}::test_a_kept_connection_that_sends_line_breaks",
        edits=[
            (
                "gateway/http_protocol.py",
                "self._settings.handshake_timeout_s, self._on_head_late",
                "3600, self._on_head_late",
            )
        ],
    ),
    _guard(
        "the time for a body",
        f"{WIRE}::test_a_body_that_drips",
        edits=[("gateway/api/body.py", "asyncio.timeout(timeout_s)", "asyncio.timeout(None)")],
    ),
    _guard(
        "the size of a head",
        f"{WIRE}::test_huge_headers",
        edits=[
            ("gateway/http_protocol.py", "if self._head_bytes > self._settings.max_head_bytes:", "if False:"),
            ("gateway/http_protocol.py", "if size > self._settings.max_head_bytes:", "if False:"),
        ],
    ),
    _guard(
        "a head's size is not its body's",
        f"{WIRE}::test_a_large_body_is_no_large_head",
        edits=[
            (
                "gateway/http_protocol.py",
                "if self._in_head:\n            self._head_bytes",
                "if True:\n            self._head_bytes",
            )
        ],
    ),
    _guard(
        "bytes that wait for one client",
        f"{WIRE}::test_slow_reader_by_bytes",
        edits=[("gateway/ws/protocol.py", "if waiting <= self._write_limit:", "if True:")],
    ),
    _guard(
        "the time a client may be behind",
        f"{WIRE}::test_slow_reader_by_time",
        edits=[
            (
                "gateway/ws/protocol.py",
                "self._settings.write_timeout_s, self._on_write_late",
                "3600, self._on_write_late",
            )
        ],
    ),
    _guard(
        "the time an answer may wait",
        f"{WIRE}::test_an_answer_that_nobody_reads",
        edits=[
            (
                "gateway/http_protocol.py",
                "self._settings.write_timeout_s, self._on_write_late",
                "3600, self._on_write_late",
            )
        ],
    ),
    _guard(
        "subprotocols that we speak",
        f"{HANDSHAKE}::test_strange_subprotocols",
        edits=[
            (
                "gateway/ws/negotiation.py",
                "return next((name for name in offered if name in CODECS), None)",
                "return next(iter(offered), None)",
            )
        ],
    ),
    # --- floods ---
    _guard(
        "connections of one place",
        f"{WIRE}::test_connection_flood_from_one_address",
        f"{WIRE}::test_echo_connections_are_counted_by_address",
        edits=[("gateway/addresses.py", "if count >= self._limit:", "if False:")],
    ),
    _guard(
        "refused connections are counted no more",
        f"{WIRE}::test_refused_connections_leave_no_trace",
        edits=[("gateway/ws/endpoints.py", "if not opened:", "if False:")],
    ),
    _guard(
        "the accept rate",
        f"{WIRE}::test_connection_flood_of_everybody",
        edits=[
            ("gateway/ws/endpoints.py", "wait_s = gateway.admission.wait_s(time.monotonic())", "wait_s = 0.0")
        ],
    ),
    _guard(
        "connections of one user",
        f"{WIRE}::test_a_user_has_so_many_connections_on_all_gateways",
        edits=[("gateway/user_limit.py", "return by_age[: max(0, len(by_age) - limit)]", "return []")],
    ),
    _guard(
        "only proxies say where a client is",
        f"{ADDRESSES}::test_x_forwarded_for",
        edits=[
            (
                "gateway/addresses.py",
                "if not self._trusts(address):\n            return str(address)",
                "if False:\n            return str(address)",
            )
        ],
    ),
    _guard(
        "all lines that say where a client is",
        f"{ADDRESSES}::test_a_line_of_the_clients_own_does_not_hide_that_of_the_proxy",
        edits=[("gateway/addresses.py", '",".join(lines).split(",")', '",".join(lines[:1]).split(",")')],
    ),
    _guard(
        "the rate of requests",
        f"{WIRE}::test_request_flood_from_one_address",
        edits=[("gateway/app.py", "if settings.request_rate:", "if False:")],
    ),
    _guard(
        "the rate of tickets",
        f"{WIRE}::test_ticket_flood_of_one_user",
        edits=[
            (
                "gateway/api/tickets.py",
                "if wait_s := deps.ticket_wait_s(identity.user_id):",
                "if wait_s := 0.0:",
            )
        ],
    ),
    _guard(
        "the rate of messages",
        f"{WIRE}::test_publish_flood",
        edits=[("gateway/session/session.py", "wait_s = self._bucket.take(now)", "wait_s = 0.0")],
    ),
    _guard(
        "the end of a flood",
        f"{RATES}::test_far_over_the_rate_is_a_flood",
        f"{WIRE}::test_publish_flood",
        edits=[
            (
                "gateway/session/limits.py",
                "return self._count > self.FLOOD_S * self._rate + 1.0",
                "return False",
            )
        ],
    ),
    # --- NATS, Redis and the wire to them ---
    _guard(
        "subjects a role may publish to",
        f"{SERVERS}::test_what_a_role_may_not_say",
        edits=[
            (
                "services/permissions/render.py",
                "publish: {{ allow: {_listed(subjects.publish)} }}",
                'publish: {{ allow: [">"] }}',
            )
        ],
    ),
    _guard(
        "subjects a role may hear",
        f"{SERVERS}::test_what_a_role_may_not_hear",
        edits=[
            (
                "services/permissions/render.py",
                "subscribe: {{ allow: {_listed(subjects.subscribe)} }}",
                'subscribe: {{ allow: [">"] }}',
            )
        ],
    ),
    _guard(
        "keys of a role",
        f"{SERVERS}::test_each_role_may_use_its_keys_and_no_others",
        edits=[("services/permissions/redis.py", "resetchannels ~{self.key_prefix}*", "resetchannels ~*")],
    ),
    _guard(
        "scopes of server keys",
        f"{AUTHENTICATOR}::TestServerApi::test_a_key_is_for_its_scopes",
        edits=[("gateway/auth/authenticator.py", "if scope not in scopes:", "if False:")],
    ),
    _guard(
        "TLS to clients",
        f"{TLS}::test_clients_over_tls",
        edits=[
            ("gateway/server.py", "ssl_certfile=settings.tls_cert,", "ssl_certfile=None,"),
            ("gateway/server.py", "ssl_keyfile=settings.tls_key,", "ssl_keyfile=None,"),
        ],
    ),
    _guard(
        "the certificate of NATS",
        f"{TLS}::test_nats_over_tls",
        edits=[
            (
                "services/tls.py",
                "context = ssl.create_default_context(cafile=_text(settings.nats_ca))",
                "context = ssl._create_unverified_context()",
            )
        ],
    ),
    _guard(
        "the certificate of Redis",
        f"{TLS}::test_redis_over_tls",
        edits=[
            (
                "services/tls.py",
                "return {name: str(path) for name, path in files.items() if path is not None}",
                'return {name: str(path) for name, path in files.items() if path} | {"ssl_cert_reqs": "none", "ssl_check_hostname": False}',
            )
        ],
    ),
    # --- what fuzzing finds ---
    _guard(
        "faults of the decoder",
        f"{MESSAGES}::test_any_fields",
        f"{MESSAGES}::test_one_wrong_byte",
        f"{FUZZING}::test_the_decoder",
        edits=[
            (
                "services/wire/codec.py",
                "except msgspec.DecodeError as fault:",
                "except ZeroDivisionError as fault:",
            ),
            (
                "services/wire/codec.py",
                "except msgspec.ValidationError as fault:",
                "except ZeroDivisionError as fault:",
            ),
        ],
    ),
    _guard(
        "faults of bodies",
        f"{CONTRACT}::test_no_request_of_the_contract_breaks_the_server",
        edits=[
            (
                "gateway/api/body.py",
                "except msgspec.DecodeError as fault:",
                "except ZeroDivisionError as fault:",
            )
        ],
    ),
)

# Tests of the threat table that no guard was taken out for, and why.
NOT_TAKEN_OUT = {
    "test_key_confusion": "PyJWT, behind the choice of algorithm, takes no public key as an HMAC secret",
    "test_poisoned_host": "handlers are bound to routes: nothing looks at the URL's text, and Starlette refuses such hosts",
    "test_poisoned_host_opens_no_door": "the same",
    "test_lua_injection": "scripts are constant files: there is no place where a name could become one",
    "test_credentials_are_not_sent_to_a_server_without_tls": "nats-py refuses it; ours is the explanation",
}
