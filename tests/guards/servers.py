"""Guards between processes, NATS and Redis, and of the permissions of their credentials."""

from tests.guards.guard import AUTHENTICATOR, KEYS, SERVERS, TLS, WEBHOOKS, guard

GUARDS = (
    # --- NATS, Redis and the wire to them ---
    guard(
        "subjects a role may publish to",
        f"{SERVERS}::test_what_a_role_may_not_say",
        edits=[
            (
                "services/permissions/render.py",
                "publish: {{ allow: {_listed(subjects.publish)} }}",
                "publish: {{ allow: ['>'] }}",
            )
        ],
    ),
    guard(
        "subjects a role may hear",
        f"{SERVERS}::test_what_a_role_may_not_hear",
        f"{SERVERS}::test_a_role_hears_its_subjects_alone",
        edits=[
            (
                "services/permissions/render.py",
                "subscribe: {{ allow: {_listed(subjects.subscribe)}{denied} }}",
                "subscribe: {{ allow: ['>'] }}",
            )
        ],
    ),
    guard(
        "answers to inboxes of one's own answers alone",
        f"{SERVERS}::test_a_role_publishes_to_its_subjects_alone_plainly_and_by_reply",
        edits=[
            (
                "services/permissions/render.py",
                "      subscribe: {{ allow: {_listed(subjects.subscribe)}{denied} }}\\n",
                "      subscribe: {{ allow: {_listed(subjects.subscribe)}{denied} }}\\n      allow_responses: true\\n",
            )
        ],
    ),
    guard(
        "questions the server answers to any subject",
        f"{SERVERS}::test_a_role_publishes_to_its_subjects_alone_plainly_and_by_reply",
        edits=[
            (
                "services/permissions/nats.py",
                'f"{prefix}.probe.{role}.*",\n            *(answers',
                'f"{prefix}.probe.{role}.*", "$SYS.REQ.USER.INFO",\n            *(answers',
            )
        ],
    ),
    guard(
        "an inbox for each role that answers",
        f"{SERVERS}::test_no_role_answers_for_another",
        edits=[
            (
                "services/permissions/nats.py",
                '(inbox_prefix(Role.GATEWAY, role) + ".*.*", *_INBOXES_WITHOUT_ROLE)',
                '("_INBOX.gateway.>", *_INBOXES_WITHOUT_ROLE)',
            )
        ],
    ),
    guard(
        "names of sources in the log stream",
        "tests/unit/test_metrics_logs.py::test_no_role_writes_lines_in_anothers_name",
        edits=[
            ("metrics_svc/log_stream.py", 'return source if plain else f"{kind}:{source}"', "return source")
        ],
    ),
    guard(
        "secrets of URLs in logs and in the printed configuration",
        "tests/property/test_redaction_urls.py::test_no_secret_of_a_url_is_in_a_log_line",
        "tests/property/test_redaction_urls.py::test_no_secret_of_a_url_is_in_the_configuration",
        edits=[
            (
                "services/logs/redaction.py",
                'return _URL.sub(lambda found: ",".join(map(_shown, _NEXT_URL.split(found[0]))), text)',
                'return re.sub(r"(?<=://)[^/@\\s]+@", f"{REDACTED}@", text)',
            )
        ],
    ),
    guard(
        "secrets of other processes' settings",
        "tests/integration/test_up_processes.py::test_children_get_the_secrets_they_need_and_no_others",
        edits=[
            (
                "tidings_cli/local/processes.py",
                'if not without & {name.upper(), name.upper().removesuffix("_FILE")}',
                "if True",
            )
        ],
    ),
    guard(
        "settings that would let everybody in, or nobody",
        "tests/unit/test_settings_problems.py::test_what_cannot_work_is_named",
        "tests/integration/test_up_processes.py::test_settings_that_cannot_work_are_refused_before_anything_starts",
        edits=[
            (
                "services/settings_problems.py",
                "if role in (None, Role.GATEWAY):",
                "if False:",
            )
        ],
    ),
    guard(
        "keys of a role",
        f"{SERVERS}::test_each_role_may_use_its_keys_and_no_others",
        edits=[("services/permissions/redis.py", "resetchannels ~{self.key_prefix}*", "resetchannels ~*")],
    ),
    guard(
        "scopes of API keys",
        f"{AUTHENTICATOR}::TestServerApi::test_a_key_is_for_its_scopes",
        edits=[("gateway/auth/authenticator.py", "if self.scopes.isdisjoint(scopes):", "if False:")],
    ),
    guard(
        "TLS to clients",
        f"{TLS}::test_clients_over_tls",
        edits=[("gateway/server.py", "if settings.tls_cert:", "if False:")],
    ),
    guard(
        "the certificate of NATS",
        f"{TLS}::test_nats_over_tls",
        edits=[
            (
                "services/bus/connect.py",
                "context = ssl.create_default_context(cafile=settings.nats_ca)",
                "context = ssl._create_unverified_context()",
            )
        ],
    ),
    guard(
        "the certificate of Redis",
        f"{TLS}::test_redis_over_tls",
        edits=[
            (
                "services/redis_client.py",
                "return {name: str(path) for name, path in files.items() if path is not None}",
                'return {name: str(path) for name, path in files.items() if path} | {"ssl_cert_reqs": "none", "ssl_check_hostname": False}',
            )
        ],
    ),
    # --- presence: what a question or a receiver may cost ---
    guard(
        "rooms that are asked about leave nothing behind",
        f"{KEYS}::test_reads_write_nothing",
        edits=[("presence_svc/lua/page.lua", "if follows and not version then", "if not version then")],
    ),
    guard(
        "the time of one post to a webhook",
        f"{WEBHOOKS}::test_a_receiver_that_drips_its_answer_has_the_time_of_one_post",
        edits=[
            (
                "services/webhooks.py",
                "async with asyncio.timeout(self._attempt_s):",
                "async with asyncio.timeout(None):",
            )
        ],
    ),
)
