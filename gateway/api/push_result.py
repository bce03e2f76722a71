"""What pushes of several items are answered: how many were taken, and why each other one was not."""

from starlette.responses import Response

from gateway.api.responses import JsonResponse
from services.wire.codes import ErrorCode
from services.wire.records import ErrorBody, Record


class Rejection(Record, frozen=True, kw_only=True):
    """Why the item at `index` was not taken."""

    index: int
    code: str
    message: str


class PushResult(Record, frozen=True, kw_only=True):
    """What became of a push."""

    accepted: int
    rejected: list[Rejection]


class PushRefused(ErrorBody, frozen=True, kw_only=True):
    """No item was taken: an error, and why of each."""

    accepted: int
    rejected: list[Rejection]


def push_answer(result: PushResult) -> Response:
    """Return 202 when anything was taken, or nothing was asked; else 400."""
    if result.accepted or not result.rejected:
        return JsonResponse(result, 202)
    refused = PushRefused(
        code=ErrorCode.INVALID_FIELD.code,
        message="no item was taken",
        retryable=False,
        accepted=0,
        rejected=result.rejected,
    )
    return JsonResponse(refused, 400)
