"""Guards of authentication and permissions."""

from tests.guards.guard import (
    AUTHENTICATOR,
    ENDINGS,
    HANDSHAKE,
    HOOK_CALLER,
    HOOKS,
    JWKS,
    LIVE,
    ROOM_TOKENS,
    TOKENS,
    guard,
)

GUARDS = (
    # --- the application ---
    guard(
        "rooms that the application refuses, over HTTP",
        f"{HOOKS}::test_a_refused_room_stays_closed_on_every_way",
        edits=[("gateway/gateway.py", "if self.hooks is None or not self.hooks.asks_join or", "if True or")],
    ),
    guard(
        "members of a room that the application refuses",
        f"{HOOKS}::test_a_refused_room_stays_closed_on_every_way",
        edits=[
            (
                "gateway/ws/hooked_connection.py",
                "rooms = self._rooms_shown(command) if self._hooks.asks_join else []",
                "rooms: list[str] = []",
            )
        ],
    ),
    guard(
        "an answer that was revoked",
        f"{HOOKS}::test_an_answer_is_kept_until_the_user_is_revoked",
        edits=[("gateway/hooks/hooks.py", "and revoked(kept.identity)", "and False")],
    ),
    guard(
        "an answer of limited size",
        f"{HOOK_CALLER}::test_what_is_no_answer_is_refused_or_allowed",
        edits=[
            ("gateway/hooks/http_client.py", "if len(self._body) + len(body) > MAX_BODY_BYTES:", "if False:")
        ],
    ),
    guard(
        "few requests to the application at once",
        f"{HOOK_CALLER}::test_few_requests_are_under_way_and_more_than_may_wait_are_refused",
        edits=[
            (
                "gateway/hooks/caller.py",
                "if self._waiting >= WAITING_PER_SLOT * self._concurrency:",
                "if False:",
            )
        ],
    ),
    guard(
        "the breaker of hooks",
        f"{HOOK_CALLER}::test_the_breaker_opens_asks_once_and_closes",
        edits=[("gateway/hooks/caller.py", "if not self._breaker.allow(self._clock()):", "if False:")],
    ),
    guard(
        "a refusal of a wrong type",
        f"{HOOK_CALLER}::test_a_refusal_of_a_wrong_type_refuses_under_allow_too",
        edits=[("gateway/hooks/messages.py", 'if field.partition(".")[0] == "refuse":', "if False:")],
    ),
    # --- pages ---
    guard(
        "the page's origin, on upgrades",
        f"{HANDSHAKE}::test_cross_site_websocket_hijack",
        edits=[("gateway/ws/handshake.py", "gateway.authenticator.origins.check(request.headers)", "pass")],
    ),
    guard(
        "the page's origin, everywhere",
        f"{HANDSHAKE}::test_cross_site_websocket_hijack",
        "tests/unit/test_auth_origins.py::test_cross_site_websocket_hijack",
        edits=[
            (
                "gateway/auth/origins.py",
                "raise ForeignOrigin(origin)",
                "return origin",
            )
        ],
    ),
    guard(
        "what other sites embed",
        f"{HANDSHAKE}::test_a_page_of_another_site_embeds_nothing",
        edits=[
            (
                "gateway/auth/origins.py",
                'if headers.get("sec-fetch-site") == "cross-site" and',
                "if False and",
            )
        ],
    ),
    guard(
        "the scheme of the own page",
        "tests/unit/test_auth_origins.py::test_under_tls_the_own_page_has_its_scheme",
        edits=[("gateway/auth/origins.py", "if own and scheme in self._own_schemes:", "if own:")],
    ),
    guard(
        "pages of this machine, and of no other",
        "tests/unit/test_auth_origins.py::test_no_other_pages_pass_there",
        edits=[("gateway/auth/origins.py", 'scheme == "http" and _is_loopback(authority)', "normal")],
    ),
    guard(
        "CORS for one origin",
        f"{HANDSHAKE}::test_cors_is_exact",
        edits=[
            (
                "gateway/http/app.py",
                '{"access-control-allow-origin": foreign,',
                '{"access-control-allow-origin": "*",',
            )
        ],
    ),
    guard(
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
    guard(
        "signatures, and keys by algorithm",
        f"{TOKENS}::test_alg_none",
        edits=[
            (
                "gateway/auth/tokens.py",
                'if header.get("alg") == "HS256":',
                "if True:",
            ),
            (
                "gateway/auth/tokens.py",
                'options={"require": [',
                'options={"verify_signature": False, "require": [',
            ),
        ],
    ),
    guard(
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
    guard(
        "expiry",
        f"{TOKENS}::test_an_expired_token",
        edits=[
            ("gateway/auth/tokens.py", 'options={"require": [', 'options={"verify_exp": False, "require": [')
        ],
    ),
    guard(
        "audience",
        f"{TOKENS}::test_another_audience",
        edits=[("gateway/auth/tokens.py", '"verify_aud": self._audience is not None', '"verify_aud": False')],
    ),
    guard(
        "issuer",
        f"{TOKENS}::test_another_issuer",
        edits=[("gateway/auth/tokens.py", "issuer=candidate.issuer or None,", "issuer=None,")],
    ),
    guard(
        "`crit`",
        f"{TOKENS}::test_a_properly_signed_crit_is_refused",
        edits=[("gateway/auth/tokens.py", 'if "crit" in header:', "if False:")],
    ),
    guard(
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
    guard(
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
    guard(
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
    guard(
        "the size of a set of keys",
        f"{JWKS}::test_fetching_fails",
        edits=[("gateway/auth/jwks.py", "if len(body) > MAX_BYTES:", "if False:")],
    ),
    guard(
        "the time to fetch a set of keys",
        f"{JWKS}::test_a_document_that_drips_is_given_up",
        edits=[
            ("gateway/auth/jwks.py", "asyncio.timeout(timeout_s)", "asyncio.timeout(None)"),
        ],
    ),
    guard(
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
    guard(
        "a message is kept from the sender's own connection alone",
        "tests/unit/test_delivery_fanout.py::test_a_sender_cannot_exclude_another_users_connection",
        "tests/integration/gateway/test_http_messages.py::test_a_sender_cannot_exclude_another_user",
        edits=[("gateway/delivery/fanout.py", "and (sender is None or member.user_id == sender)", "")],
    ),
    guard(
        "status and data are set for the user's own connection alone",
        "tests/integration/gateway/test_http_messages.py::test_status_and_data_count_as_on_a_socket",
        edits=[
            (
                "gateway/user_presence.py",
                "self._connections.of_user(order.user_id)",
                "list(self._connections)",
            ),
        ],
    ),
    guard(
        "a ticket is taken",
        f"{HANDSHAKE}::test_ticket_reuse",
        edits=[
            (
                "gateway/auth/tickets.py",
                "if entry is None or not await self._bucket.consume(key, entry.seq):",
                "if entry is None:",
            )
        ],
    ),
    # --- rights that end ---
    guard(
        "the end of a token ends its connection",
        f"{LIVE}::test_an_expired_token_ends_the_connection_after_a_warning",
        f"{ENDINGS}::test_expiry_ends_every_kind",
        edits=[
            ("gateway/connections.py", "partial(client.disconnect, CloseCode.TOKEN_EXPIRED)", "lambda: None")
        ],
    ),
    guard(
        "permissions, again",
        f"{LIVE}::test_a_renewal_checks_all_permissions_again",
        edits=[
            (
                "gateway/client/commands.py",
                "if not (grants.may_join(room) or self._is_granted(room))",
                "if False",
            )
        ],
    ),
    guard(
        "a token for one room is no login",
        f"{ROOM_TOKENS}::test_a_room_token_is_no_login",
        edits=[("gateway/auth/tokens.py", 'if "room" in claims:', "if False:")],
    ),
    guard(
        "a token for one room is its user's, and for that room",
        f"{ROOM_TOKENS}::test_a_refused_room_token_joins_nothing",
        edits=[
            (
                "gateway/auth/authenticator.py",
                "if found.identity.user_id != user_id or found.room != room:",
                "if False:",
            )
        ],
    ),
    guard(
        "a join that waits for its token gives no right",
        "tests/unit/test_client_commands.py::test_a_join_that_waits_for_its_token_gives_no_right",
        edits=[
            (
                "gateway/client/commands.py",
                "if not (has_token or self._is_granted(room) or self.identity.grants.may_join(room)):",
                "if is_new and not (has_token or self.identity.grants.may_join(room)):",
            )
        ],
    ),
    guard(
        "the end of a room token ends the membership",
        f"{ROOM_TOKENS}::test_a_member_is_removed_when_its_token_expires",
        edits=[("gateway/ws/room_client.py", "timer.start(verified.identity.expires_at)", "pass")],
    ),
    guard(
        "revocations of room tokens end memberships",
        f"{ROOM_TOKENS}::test_a_revoked_room_token_ends_the_membership",
        edits=[("gateway/gateway.py", "self.connections.end_room_tokens(revoked)", "pass")],
    ),
    guard(
        "a renewal is for the same user",
        f"{LIVE}::test_a_refused_renewal_changes_nothing",
        edits=[("gateway/auth/authenticator.py", "if renewed.user_id != identity.user_id:", "if False:")],
    ),
    guard(
        "revocations end connections",
        f"{LIVE}::test_a_revoked_token_is_one_token",
        edits=[("gateway/gateway.py", "client.disconnect(CloseCode.BAD_TOKEN)", "pass")],
    ),
    guard(
        "revocations keep out",
        f"{LIVE}::test_a_revoked_user_is_out_everywhere_within_a_second",
        edits=[("gateway/auth/authenticator.py", "if self.revocations.covers(identity, now):", "if False:")],
    ),
    guard(
        "revocations are read at start",
        f"{LIVE}::test_a_gateway_that_starts_later_knows",
        edits=[("gateway/auth/revocation_log.py", "seq, complete = 1, False", "seq, complete = 1, True")],
    ),
    guard(
        "streams of metrics have a user",
        f"{ENDINGS}::test_every_order_ends_every_kind",
        edits=[
            (
                "gateway/sse/stream.py",
                "self.user_id = identity.user_id",
                'self.user_id = ""',
            )
        ],
    ),
    guard(
        "revocations cover clocks that are ahead",
        f"{ENDINGS}::test_a_clock_that_is_ahead_is_no_way_around_a_revocation",
        edits=[("gateway/api/users.py", "now + CLOCK_SKEW_S if user_id", "now if user_id")],
    ),
    guard(
        "revocations are known before anybody is let in",
        f"{ENDINGS}::test_connections_are_refused_while_revocations_are_unknown",
        edits=[
            (
                "gateway/auth/authenticator.py",
                "if not self.open and not self.revocations.current:",
                "if False:",
            )
        ],
    ),
    # --- visibility of users ---
    guard(
        "members of a room are shown to who may join it",
        "tests/unit/test_auth_grants.py::test_members_of_a_room_are_shown_to_users_who_may_join_it",
        edits=[
            (
                "services/wire/grants.py",
                "return room == channel or self.join.matches(room) or named",
                "return True",
            )
        ],
    ),
    guard(
        "who is online is said to who may see presence",
        f"{LIVE}::test_online_status_needs_the_right_to_see_presence",
        edits=[("gateway/user_presence.py", "if not asker.may_follow(channel_names.PRESENCE):", "if False:")],
    ),
    guard(
        "no token is for the server",
        f"{LIVE}::test_no_user_is_named_server",
        edits=[("gateway/auth/tokens.py", "if user_id == SERVER_USER_ID:", "if False:")],
    ),
)
