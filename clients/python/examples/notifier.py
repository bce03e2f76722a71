"""Sends alerts to a room and to users: `python notifier.py --room ops --user USER_ID`.

Each alert that begins or ends is published to the room and sent to the users, who receive it when they reconnect if they
are offline. Direct messages to the notifier itself are printed, so that two of them can be tried with each other.

Shows: alerts across connections, direct messages, ids that make a repeat harmless, concurrent requests.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from tidings_client import Alert, TidingsClient, TidingsError


async def send(client: TidingsClient, alert: Alert, how: str, room_name: str, users: Sequence[str]) -> None:
    """Send one change of an alert to the room and the users."""
    text = f"{how}: {alert.message}"
    print(text, flush=True)
    news = {"alert": alert.id, "how": how, "severity": alert.type, "text": text}
    # With this id, a second notifier of the same user does not store the same change again.
    news_id = f"{how}-{alert.id}-{alert.timestamp}"[:64]
    results = await asyncio.gather(
        client.room(room_name).publish(news, id=news_id),
        *(client.send_direct(user, news, id=f"{number}-{news_id}"[:64]) for number, user in enumerate(users)),
        return_exceptions=True,
    )
    for fault in results:
        if isinstance(fault, TidingsError):
            print(f"not sent: {fault} ({fault.code})", flush=True)


async def notify(url: str, name: str, room_name: str, users: Sequence[str]) -> None:
    """Send alerts until cancelled."""
    async with TidingsClient(url, username=name) as client:
        await client.room(room_name).join()
        print(f"{name} is {client.user_id}", flush=True)

        async def read(how: str) -> None:
            events = client.alerts.raises if how == "raised" else client.alerts.resolves
            async for alert in events.stream():
                await send(client, alert, how, room_name, users)

        async def read_inbox() -> None:
            async for message in client.inbox:
                print(f"from {message.username}: {message.content}", flush=True)

        with client.alerts.follow():  # subscribes in the next turn of the loop, when all three read
            await asyncio.gather(read("raised"), read("resolved"), read_inbox())


def main() -> None:
    """Read the command line and notify."""
    parser = argparse.ArgumentParser(description="Send alerts to a room and to users.")
    parser.add_argument("--room", default="example-ops")
    parser.add_argument("--user", action="append", default=[], help="id of a user who gets a direct message")
    parser.add_argument("--name", default="notifier")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    asked = parser.parse_args()
    try:
        asyncio.run(notify(asked.url, asked.name, asked.room, asked.user))
    except (TidingsError, ValueError) as fault:
        sys.exit(f"ended: {fault}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
