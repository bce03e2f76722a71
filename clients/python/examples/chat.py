"""A chat in the terminal: `python chat.py --name Ada lobby`. Each line that you type is sent; Ctrl-D leaves.

Shows: a room's history, joins and leaves, own messages in order, sending while disconnected.
"""

import argparse
import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator

from tidings_client import ConnectionStatus, Room, RoomMessage, RoomPast, Stream, TidingsClient, TidingsError


async def lines() -> AsyncIterator[str]:
    """Yield lines of the input without blocking the loop."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
            for line in sys.stdin:
                loop.call_soon_threadsafe(typed.put_nowait, line.strip())
            loop.call_soon_threadsafe(typed.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    while (line := await typed.get()) is not None:
        yield line


def show(message: RoomMessage) -> None:
    """Print a message as `12:30 Ada: hello`."""
    at = time.strftime("%H:%M", time.localtime(message.timestamp / 1000))
    print(f"{at} {message.username}: {message.content}", flush=True)


async def read(room: Room, heard: Stream[RoomMessage], past: RoomPast) -> None:
    """Show live messages, except those that the history had already. In another epoch `seq` starts again."""
    async for message in heard:
        same = room.position is not None and room.position.epoch == past.epoch
        if not same or message.seq is None or message.seq > (past.seq or 0):
            show(message)


def show_status(status: ConnectionStatus) -> None:
    """Print when the connection is lost, and when it is back."""
    if status.state == "suspended" and status.retry_at is not None:
        print(f"-- {status.reason}; trying again in {status.retry_at - time.time():.0f} s", flush=True)
    elif status.state != "connecting":
        print(f"-- {status.state}", flush=True)


async def chat(url: str, name: str, room_name: str) -> None:
    """Talk in a room until the input ends."""
    client = TidingsClient(url, username=name)
    client.statuses.listen(show_status)
    async with client:
        room = client.room(room_name)
        room.gaps.listen(lambda _: print("-- some messages are gone", flush=True))
        room.user_joins.listen(lambda user: print(f"-- {user.username} is here", flush=True))
        room.user_leaves.listen(lambda user: print(f"-- {user.username} left", flush=True))
        heard = room.stream()  # from here on, while the history is read
        await room.join()
        past = await room.history(limit=10)
        for message in past.messages:
            show(message)
        print(f"-- you are {name} in {room_name}", flush=True)
        reading = asyncio.create_task(read(room, heard, past))
        async for line in lines():
            try:
                if line:  # while disconnected it waits, and is sent after the reconnect
                    await room.publish(line, echo=True)
            except TidingsError as fault:
                print(f"-- not sent: {fault}", flush=True)
    await reading  # its stream ends with the client


def main() -> None:
    """Read the command line and talk."""
    parser = argparse.ArgumentParser(description="A chat in the terminal.")
    parser.add_argument("room", nargs="?", default="example-chat")
    parser.add_argument("--name", default="guest")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    asked = parser.parse_args()
    try:
        asyncio.run(chat(asked.url, asked.name, asked.room))
    except (TidingsError, ValueError) as fault:
        sys.exit(f"refused: {fault}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
