"""`/openapi.json` and `/asyncapi.json`, for anyone."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.responses import JsonResponse
from gateway.contracts.asyncapi import asyncapi
from gateway.contracts.openapi import openapi


def contract_routes() -> list[Route]:
    """Return the routes of both documents."""

    async def http(_request: Request) -> Response:
        """Answer the HTTP surface."""
        return JsonResponse(openapi())

    async def messages(_request: Request) -> Response:
        """Answer the messages of WebSocket and streams."""
        return JsonResponse(asyncapi())

    return [Route("/openapi.json", http, methods=["GET"]), Route("/asyncapi.json", messages, methods=["GET"])]
