"""Guards against hostile input of clients."""

from tests.guards.guard import (
    ADDRESSES,
    BATCHES,
    CODEC,
    CONTRACT,
    COST,
    FRAMES,
    FUZZING,
    HANDSHAKE,
    MESSAGES,
    OTLP,
    PRESENCE,
    PUSHES,
    RATES,
    REPORTS,
    SANITIZING,
    TLS,
    WIRE,
    guard,
)

GUARDS = (
    # --- names and content ---
    guard(
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
    guard(
        "names are composed",
        f"{HANDSHAKE}::test_room_name_confusion",
        edits=[("services/wire/names.py", 'text = unicodedata.normalize("NFC", text)', "pass")],
    ),
    guard(
        "names without control characters",
        f"{HANDSHAKE}::test_names_that_are_none",
        edits=[
            ("services/wire/names.py", 'if any(unicodedata.category(c) == "Cc" for c in text):', "if False:")
        ],
    ),
    guard(
        "the names of agents and gateways are theirs",
        f"{REPORTS}::test_an_application_does_not_speak_for_an_agent_or_a_gateway",
        edits=[
            (
                "metrics_svc/aggregation/sources.py",
                "return RejectReason.NAME_TAKEN",
                "pass",
            )
        ],
    ),
    guard(
        "agents and gateways take places of applications",
        f"{REPORTS}::test_made_up_sources_keep_no_agent_out",
        edits=[
            (
                "metrics_svc/aggregation/sources.py",
                "(priority and source.kind is SourceKind.APP)",
                "False",
            )
        ],
    ),
    guard(
        "the depth of content",
        f"{HANDSHAKE}::test_json_bomb",
        edits=[("services/wire/content.py", 'if json.count(b"[") + json.count(b"{") <= limit:', "if True:")],
    ),
    guard(
        "numbers are read in short time",
        f"{COST}::test_json_content",
        f"{COST}::test_content_for_receivers_of_messagepack",
        f"{COST}::test_a_message_with_a_wrong_id",
        edits=[
            ("services/wire/content.py", "Decoder(float_hook=number)", "Decoder()"),
            ("services/wire/codec.py", "Decoder(_Peek, float_hook=number)", "Decoder(_Peek)"),
            ("gateway/delivery/encoded_message.py", "Decoder(float_hook=float)", "Decoder()"),
        ],
    ),
    guard(
        "the size of content as JSON",
        f"{CODEC}::test_content_is_as_large_as_its_json",
        edits=[("services/wire/content.py", "if max_bytes and len(text) > max_bytes:", "if False:")],
    ),
    guard(
        "positions that a stream can have",
        f"{CODEC}::test_a_position_that_no_stream_has",
        edits=[("services/wire/records.py", "msgspec.Meta(ge=0, le=MAX_SEQ)", "msgspec.Meta()")],
    ),
    guard(
        "extreme numbers in bodies",
        f"{COST}::test_pushed_metrics",
        f"{COST}::test_bodies",
        f"{PUSHES}::test_what_is_too_costly_in_a_push",
        edits=[("gateway/api/body.py", "    if with_numbers:\n", "    if False:\n")],
    ),
    guard(
        "numbers of log lines",
        f"{COST}::test_pushed_lines",
        edits=[
            ("gateway/api/body.py", "Decoder(type_, float_hook=number)", "Decoder(type_)"),
            ("gateway/api/body.py", "    if with_numbers:\n", "    if False:\n"),
        ],
    ),
    guard(
        "the size of a pushed item",
        f"{PUSHES}::test_what_is_too_costly_in_a_push",
        edits=[("gateway/api/pushes.py", "if len(raw) > max_bytes:", "if False:")],
    ),
    guard(
        "the elements of an export",
        f"{OTLP}::test_too_much_in_one_export",
        f"{COST}::test_exports_as_json",
        edits=[("gateway/api/otlp/split.py", "if self._left < 0:", "if False:")],
    ),
    guard(
        "an export is parsed in pieces",
        f"{COST}::test_exports_as_protobuf",
        f"{COST}::test_exports_as_json",
        edits=[
            (
                "gateway/api/otlp/split.py",
                "if group and (sizes[0] > _PIECE_OBJECTS",
                "if group and False and (0 > 0",
            ),
            ("gateway/api/otlp/split.py", "if len(data) > _MAX_PART_BYTES:", "if False:"),
            (
                "gateway/api/otlp/split.py",
                "if objects > _MAX_PART_OBJECTS or commas > _MAX_PART_COMMAS:",
                "if False:",
            ),
        ],
    ),
    guard(
        "the size of an export",
        f"{COST}::test_a_gzip_bomb",
        edits=[
            ("gateway/api/otlp/export.py", "decompress(body, _UNPACKED_AT_ONCE)", "decompress(body)"),
        ],
    ),
    guard(
        "exports that wait",
        f"{OTLP}::test_exports_wait_for_each_other_and_few_do",
        edits=[("gateway/api/pushes.py", "if self._waiting > self._max_waiting:", "if False:")],
    ),
    guard(
        "a slice at a time",
        f"{OTLP}::test_others_are_served_between_the_slices",
        edits=[("gateway/api/pushes.py", "if spent >= SLICE_S:", "if False:")],
    ),
    guard(
        "an allow-list of HTML",
        f"{SANITIZING}::test_nothing_runs",
        edits=[
            ("gateway/delivery/sanitizing.py", "        return nh3.clean(text)\n", "        return text\n")
        ],
    ),
    guard(
        "the markup of a message",
        f"{SANITIZING}::test_more_markup_than_is_cleaned_in_a_few_milliseconds",
        f"{COST}::test_sanitizing",
        edits=[
            (
                "gateway/delivery/sanitizing.py",
                "if min(self._strings, self._markup, self._bytes, self._reopened) < 0:",
                "if False:",
            )
        ],
    ),
    guard(
        "the size of sanitized content",
        f"{SANITIZING}::test_what_comes_out_has_a_size_too",
        edits=[("gateway/delivery/sanitizing.py", "if max_bytes and len(found) > max_bytes:", "if False:")],
    ),
    guard(
        "a search without backtracking",
        f"{HANDSHAKE}::test_redos_in_patterns",
        edits=[
            (
                "services/wire/grants.py",
                'wildcards = tuple(_wildcard(pattern).matches for pattern in patterns if "*" in pattern)',
                'import re\n    wildcards = tuple(re.compile(p.replace("*", ".*")).fullmatch for p in patterns if "*" in p)',
            )
        ],
    ),
    guard(
        "log lines are cleaned",
        f"{HANDSHAKE}::test_log_injection_and_log_cleanliness",
        edits=[
            (
                "services/logs/redaction.py",
                'text = clean_urls(_UNPRINTABLE.sub("", text))\n    return f"{text[:limit]}',
                'text = clean_urls(text)\n    return f"{text[:limit]}',
            )
        ],
    ),
    # --- the wire ---
    guard(
        "the size of a message",
        f"{WIRE}::test_oversize",
        f"{WIRE}::test_oversize_in_fragments",
        f"{WIRE}::test_deflate_bomb",
        f"{FRAMES}::test_any_bytes_in_any_pieces",
        edits=[
            ("gateway/ws/frames.py", "max_size=max_bytes,", "max_size=None,"),
            ("gateway/ws/frames.py", "if length > max_bytes or start", "if start"),
        ],
    ),
    guard(
        "the rate of frames",
        f"{WIRE}::test_fragment_flood",
        f"{WIRE}::test_empty_fragment_flood",
        f"{WIRE}::test_control_frame_flood",
        edits=[("gateway/ws/protocol.py", "if not self._frame_bucket.consume(now):", "if True:")],
    ),
    guard(
        "others go first",
        f"{FRAMES}::test_a_large_burst_lets_other_connections_go_first",
        edits=[
            (
                "gateway/ws/protocol.py",
                "if len(data) >= _FAIR_BYTES and self._transport.is_reading():",
                "if False:",
            )
        ],
    ),
    guard(
        "the time for a head",
        f"{WIRE}::test_slow_loris",
        f"{WIRE}::test_a_connection_that_says_nothing",
        f"{WIRE}::test_a_kept_connection_that_sends_line_breaks",
        f"{WIRE}::test_a_body_that_drips_behind_its_answer",
        edits=[
            (
                "gateway/http/protocol.py",
                "self._settings.handshake_timeout_s, self._on_head_late",
                "3600, self._on_head_late",
            ),
            (
                "gateway/ws/sniff.py",
                "TimeoutQueue(timeout_s, ProtocolSniffer.on_timeout)",
                "TimeoutQueue(3600, ProtocolSniffer.on_timeout)",
            ),
        ],
    ),
    guard(
        "the time for a body",
        f"{WIRE}::test_a_body_that_drips",
        edits=[("gateway/api/body.py", "asyncio.timeout(timeout_s)", "asyncio.timeout(None)")],
    ),
    guard(
        "the size of a head",
        f"{WIRE}::test_huge_headers",
        edits=[
            ("gateway/http/protocol.py", "if self._head_bytes > self._settings.max_head_bytes:", "if False:"),
            ("gateway/http/protocol.py", "if size > self._settings.max_head_bytes:", "if False:"),
        ],
    ),
    guard(
        "trailers are no headers",
        f"{WIRE}::test_trailers_are_no_headers",
        edits=[
            (
                "gateway/http/protocol.py",
                "if self._in_head:\n            super().on_header(name, value)\n            return",
                "super().on_header(name, value)",
            )
        ],
    ),
    guard(
        "the size of trailers",
        f"{WIRE}::test_trailers_without_end",
        edits=[
            (
                "gateway/http/protocol.py",
                "if self._trailer_bytes > self._settings.max_head_bytes:",
                "if False:",
            ),
            (
                "gateway/http/protocol.py",
                "if self._unfinished_bytes > self._settings.max_head_bytes:",
                "if False:",
            ),
        ],
    ),
    guard(
        "one host, and a version",
        f"{WIRE}::test_a_request_names_one_host_and_a_version",
        edits=[
            ("gateway/http/protocol.py", 'if version not in ("1.0", "1.1"):', "if False:"),
            ("gateway/http/protocol.py", 'if names.count(b"host") > 1 or', "if False and"),
        ],
    ),
    guard(
        "upgrades without a body",
        f"{WIRE}::test_an_upgrade_with_a_body",
        edits=[("gateway/http/protocol.py", "if self.parser.should_upgrade() and any(", "if False and any(")],
    ),
    guard(
        "requests that wait behind an answer",
        f"{WIRE}::test_requests_behind_an_answer",
        f"{WIRE}::test_requests_behind_a_stream",
        edits=[("gateway/http/protocol.py", "elif len(self.pipeline) >= _MAX_PIPELINED:", "elif False:")],
    ),
    guard(
        "the time for a TLS handshake",
        f"{TLS}::test_a_tls_handshake_that_does_not_end",
        edits=[
            (
                "gateway/server.py",
                "ssl_handshake_timeout=handshake_s",
                "ssl_handshake_timeout=handshake_s and 3600",
            )
        ],
    ),
    guard(
        "the time to end TLS",
        f"{TLS}::test_a_peer_without_close_notify",
        edits=[("gateway/server.py", "            ssl_shutdown_timeout=shutdown_s,\n", "")],
    ),
    guard(
        "a head's size is not its body's",
        f"{WIRE}::test_a_large_body_is_no_large_head",
        edits=[
            (
                "gateway/http/protocol.py",
                "if self._in_head:\n            self._head_bytes",
                "if True:\n            self._head_bytes",
            )
        ],
    ),
    guard(
        "bytes that wait for one client",
        f"{WIRE}::test_slow_reader_by_bytes",
        edits=[("gateway/ws/protocol.py", "if waiting <= self._write_limit:", "if True:")],
    ),
    guard(
        "the time a client may be behind",
        f"{WIRE}::test_slow_reader_by_time",
        edits=[
            (
                "gateway/ws/protocol.py",
                "settings.write_timeout_s, self._on_write_late",
                "3600, self._on_write_late",
            )
        ],
    ),
    guard(
        "the time an answer may wait",
        f"{WIRE}::test_an_answer_that_is_not_read",
        edits=[
            (
                "gateway/http/protocol.py",
                "self._settings.write_timeout_s, self._on_write_late",
                "3600, self._on_write_late",
            )
        ],
    ),
    guard(
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
    guard(
        "connections of one place",
        f"{WIRE}::test_connection_flood_from_one_address",
        f"{WIRE}::test_echo_connections_are_counted_by_address",
        edits=[("gateway/connections.py", "if count >= self._ip_limit:", "if False:")],
    ),
    guard(
        "refused connections are counted no more",
        f"{WIRE}::test_refused_connections_leave_no_trace",
        edits=[("gateway/ws/handshake.py", "if not opened:", "if False:")],
    ),
    guard(
        "the accept rate",
        f"{WIRE}::test_connection_flood_over_the_total_rate",
        edits=[
            (
                "gateway/connections.py",
                "wait_s = self._accept_rate.retry_after_s(time.monotonic())",
                "wait_s = 0.0",
            )
        ],
    ),
    guard(
        "connections of one user",
        f"{WIRE}::test_a_user_has_so_many_connections_on_all_gateways",
        edits=[("gateway/connections.py", "return by_age[: max(0, len(by_age) - limit)]", "return []")],
    ),
    guard(
        "only proxies say where a client is",
        f"{ADDRESSES}::test_x_forwarded_for",
        edits=[
            (
                "gateway/http/client_address.py",
                "if not self._trusts(address):\n            return str(address)",
                "if False:\n            return str(address)",
            )
        ],
    ),
    guard(
        "all lines that say where a client is",
        f"{ADDRESSES}::test_a_line_of_the_clients_own_does_not_hide_that_of_the_proxy",
        edits=[
            ("gateway/http/client_address.py", '",".join(lines).split(",")', '",".join(lines[:1]).split(",")')
        ],
    ),
    guard(
        "the rate of requests",
        f"{WIRE}::test_request_flood_from_one_address",
        edits=[("gateway/http/app.py", "if gateway.settings.request_rate:", "if False:")],
    ),
    guard(
        "the rate of tickets",
        f"{WIRE}::test_ticket_flood_of_one_user",
        edits=[
            (
                "gateway/api/users.py",
                "if wait_s := gateway.tickets.wait_s(identity.user_id):",
                "if wait_s := 0.0:",
            )
        ],
    ),
    guard(
        "the rate of messages",
        f"{WIRE}::test_publish_flood",
        edits=[
            ("gateway/client/commands.py", "if wait_s := self._bucket.consume(now):", "if wait_s := 0.0:")
        ],
    ),
    guard(
        "the rate of bytes",
        f"{RATES}::test_bytes_have_a_rate_of_their_own",
        f"{RATES}::test_bytes_that_are_no_message_count_too",
        f"{WIRE}::test_a_flood_of_bytes",
        edits=[
            (
                "gateway/client/commands.py",
                "if wait_s := self._byte_bucket.consume(now, size):",
                "if wait_s := 0.0:",
            )
        ],
    ),
    guard(
        "the rate of presence",
        f"{RATES}::test_presence_has_a_rate_of_its_own",
        edits=[("gateway/client/commands.py", "wait_s = self._presence_bucket.consume(now)", "wait_s = 0.0")],
    ),
    guard(
        "custom data counts for each room",
        f"{RATES}::test_custom_data_counts_once_for_each_notified_room",
        f"{PRESENCE}::test_custom_data_is_charged_for_every_notified_room",
        edits=[
            (
                "gateway/client/commands.py",
                "self._byte_bucket.consume(now, size * rooms)",
                "self._byte_bucket.consume(now, size)",
            )
        ],
    ),
    guard(
        "the last custom data alone waits",
        f"{BATCHES}::test_of_what_a_connection_says_of_itself_only_the_last_waits",
        edits=[
            (
                "gateway/presence/batch_queue.py",
                "replaces = isinstance(op, DataSet | StatusSet)",
                "replaces = False",
            )
        ],
    ),
    guard(
        "the end of a flood",
        f"{RATES}::test_far_over_the_rate_is_a_flood",
        f"{WIRE}::test_publish_flood",
        edits=[
            (
                "gateway/limits.py",
                "return self._count > self.FLOOD_S * self._rate + 1.0",
                "return False",
            )
        ],
    ),
    # --- what fuzzing finds ---
    guard(
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
    guard(
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
