"""Publishing by servers: to a room, to a user, to everyone."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.access import require_server
from gateway.api.body import read_json
from gateway.api.declarations import Access, Operation
from gateway.api.deps import ApiDeps
from gateway.api.responses import ApiError, JsonResponse
from gateway.auth.api_keys import Scope
from gateway.auth.identity import SERVER_USER_ID
from gateway.delivery.publisher import Sender
from gateway.limits import Limit
from services.wire.client import MessageId
from services.wire.codes import ErrorCode
from services.wire.content import BadMessage, content_from_json
from services.wire.names import normalize_name
from services.wire.records import UNSET, Record, UnsetType
from services.wire.server import Ack


class PublishRequest(Record, frozen=True, kw_only=True):
    """Exactly one of `room`, `user_id` and `broadcast` says where to. `id` makes a retry no duplicate."""

    content: msgspec.Raw
    room: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    broadcast: bool = False
    username: str = "server"
    id: MessageId | UnsetType = UNSET


def publish_routes(deps: ApiDeps) -> list[Route]:
    """Return `POST /api/publish`."""

    async def publish(request: Request) -> Response:
        """Publish, and answer like `ack`."""
        await require_server(deps, request, Scope.PUBLISH)
        asked = await read_json(
            request, deps.settings.max_body_bytes, PublishRequest, deps.settings.body_timeout_s
        )
        if len(bytes(asked.content)) > deps.settings.max_message_bytes:
            text = f"`content` is larger than {deps.settings.max_message_bytes} bytes"
            raise ApiError(ErrorCode.TOO_LARGE, text, Limit.MESSAGE_BYTES)
        try:
            content = content_from_json(asked.content, deps.settings.max_json_depth)
        except BadMessage as fault:
            raise ApiError(fault.code, fault.message) from None
        return JsonResponse(await _publish(deps, asked, content))

    return [Route("/api/publish", publish, methods=["POST"])]


async def _publish(deps: ApiDeps, asked: PublishRequest, content: msgspec.Raw) -> Ack:
    sender = Sender(SERVER_USER_ID, normalize_name(asked.username, "username"))
    if (asked.room is not UNSET) + (asked.user_id is not UNSET) + asked.broadcast != 1:
        raise ApiError(ErrorCode.INVALID_FIELD, "exactly one of `room`, `userId` and `broadcast` is needed")
    if asked.room is not UNSET:
        room = normalize_name(asked.room, "room")
        return await deps.publisher.publish_room(sender, room, content, asked.id)
    if asked.user_id is not UNSET:
        user_id = normalize_name(asked.user_id, "userId")
        return await deps.publisher.publish_user(sender, user_id, content, asked.id)
    return await deps.publisher.broadcast(sender, content, asked.id)


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/publish",
        name="publish",
        summary="Publish to a room, to a user or to everyone, as user `server`",
        access=Access.SERVER,
        body=PublishRequest,
        answer=Ack,
    ),
)
