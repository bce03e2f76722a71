"""The streams as HTTP operations, for the contract at `/openapi.json`. What they carry is in `/asyncapi.json`."""

from gateway.api.declarations import Access, Operation, Query

_WHO = (
    Query("username", str, "Display name under `TIDINGS_AUTH=open`."),
    Query("session", str, "The `session` of an earlier `welcome` or `connected`: this is that user again."),
)

SSE_OPERATIONS = (
    Operation(
        method="GET",
        path="/events",
        name="events",
        summary="A stream of messages, as `event: TYPE`; resumed by `Last-Event-ID`",
        access=Access.READER,
        answer=str,
        media_type="text/event-stream",
        query=(
            Query("channels", str, "Channels, comma-separated or repeated; `inbox` adds direct messages."),
            Query("rooms", str, "Rooms to be a member of, comma-separated or repeated."),
            Query("last_event_id", str, "Resume, where the `Last-Event-ID` header cannot be set."),
            *_WHO,
        ),
    ),
    Operation(
        method="GET",
        path="/events/metrics",
        name="metricsEvents",
        summary="A stream of bare metrics records, the latest at once and then one a second",
        access=Access.READER,
        answer=str,
        media_type="text/event-stream",
    ),
)
