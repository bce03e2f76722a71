"""A service of an application that answers calls, as a process of its own: `python -m tests.support.call_service URL PREFIX`.

It is written as the documentation says, with nats-py alone.
"""

import asyncio
import json
import os
import sys
from typing import Any

import nats
from nats.micro import add_service
from nats.micro.request import Request, ServiceError

_SLOW_S = 30.0


async def who(request: Request) -> None:
    call = json.loads(request.data)
    await request.respond(json.dumps({"data": {**call, "pid": os.getpid()}, "later": "ignored"}).encode())


async def slow(request: Request) -> None:
    async def answer() -> None:
        await asyncio.sleep(json.loads(request.data)["data"] or _SLOW_S)
        await request.respond(b'{"data": "late"}')

    task = asyncio.create_task(answer())  # nats.micro handles one request of an endpoint after the other
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


_TASKS: set[asyncio.Task[None]] = set()


async def fail(_request: Request) -> None:
    raise LookupError("a secret of the application")


async def error(request: Request) -> None:
    code = json.loads(request.data)["data"]
    raise ServiceError(code, "the shelf is empty")


async def die(_request: Request) -> None:
    os._exit(3)


# What a service might answer, by method.
ANSWERS: dict[str, bytes] = {
    "null": b'{"data": null}',
    "refuse": b'{"refuse": {"code": "sold_out", "message": "no tickets are left"}}',
    "refuse.plainly": b'{"refuse": {"message": "no"}, "data": 1}',
    "refuse.oddly": b'{"refuse": {"code": "Not A Code!"}}',
    "huge": b'{"data": "' + b"x" * 70_000 + b'"}',
    "large": b'{"data": "' + b"x" * 65_000 + b'"}',
    "text": b"Internal Server Error",
    "empty": b"",
    "list": b"[1]",
    "bare": b'{"result": 1}',
    "number": b'{"data": 1e999}',
    "deep": b'{"data": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    "bytes": b'{"data": "\xff"}',
}


async def main(url: str, prefix: str) -> None:
    client = await nats.connect(url)
    service = await add_service(client, name="orders", version="1.0.0")
    handlers: dict[str, Any] = {"who": who, "slow": slow, "fail": fail, "error": error, "die": die}

    def fixed(answer: bytes) -> Any:
        return lambda request: request.respond(answer)

    handlers |= {method: fixed(answer) for method, answer in ANSWERS.items()}
    for method, handler in handlers.items():
        await service.add_endpoint(
            name=method.replace(".", "-"), subject=f"{prefix}.rpc.{method}", handler=handler
        )
    await client.flush()
    print("ready", flush=True)  # noqa: T201  # for the test that started it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
