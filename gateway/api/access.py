"""Who may call what. Each handler asks here first."""

from starlette.requests import Request

from gateway.api.deps import ApiDeps
from gateway.api.responses import ApiError
from gateway.auth.api_keys import Scope
from services.wire.codes import ErrorCode
from services.wire.grants import Grants


async def grants_of(deps: ApiDeps, request: Request) -> Grants:
    """Return what the asker may read. Raises AuthRefused."""
    return await deps.authenticator.authorize_read(request.headers, request.query_params)


async def require_channel(deps: ApiDeps, request: Request, channel: str) -> None:
    """Let pass who may follow the channel that shows the same. Raises AuthRefused, ApiError."""
    if not (await grants_of(deps, request)).may_follow(channel):
        raise forbidden()


async def require_server(deps: ApiDeps, request: Request, scope: Scope) -> None:
    """Let pass servers whose key is for that, and administrators. Raises AuthRefused."""
    await deps.authenticator.require_server_key(request.headers, scope)


def forbidden() -> ApiError:
    """Return the refusal that does not tell whether the thing exists."""
    return ApiError(ErrorCode.FORBIDDEN, "not allowed, or no such thing")
