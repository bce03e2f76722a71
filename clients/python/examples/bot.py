"""A bot that answers in a room: `python bot.py lobby`. Say `!time`, `!roll 20`, `!who` or `!help` there.

Shows: iteration over a room, presence as a mapping, an own status, answers that are stored once.
"""

import argparse
import asyncio
import secrets
import sys
import time

from tidings_client import Room, TidingsClient, TidingsError

HELP = "I know !time, !roll [sides], !who and !help."


def answer(text: str, room: Room) -> str | None:
    """Return what to say to a message; None if it is not for the bot."""
    command, _, rest = text.partition(" ")
    match command:
        case "!time":
            return time.strftime("It is %H:%M:%S here.")
        case "!roll":
            sides = int(rest) if rest.isdecimal() and 1 < int(rest) <= 1000 else 6
            return f"{secrets.randbelow(sides) + 1} (of {sides})"
        case "!who":
            return "Here are " + ", ".join(sorted(user.username for user in room.presence.values())) + "."
        case "!help":
            return HELP
        case _:
            return None


async def serve(url: str, name: str, room_name: str) -> None:
    """Answer until cancelled."""
    async with TidingsClient(url, username=name) as client:
        room = client.room(room_name)
        await client.set_status("online")
        await client.set_custom_data({"bot": True, "help": HELP})
        with room.presence.follow():
            await room.join()
            print(f"{name} answers in {room_name}", flush=True)
            async for message in room:
                if message.user_id == client.user_id or not isinstance(message.content, str):
                    continue  # from another connection of this bot, or not a text
                reply = answer(message.content, room)
                if reply is not None:
                    # The id names the answered message: a repeat within two minutes, even by a restarted bot, is not
                    # stored again.
                    await room.publish(f"{message.username}: {reply}", id=f"answer-{message.seq}")


def main() -> None:
    """Read the command line and answer."""
    parser = argparse.ArgumentParser(description="A bot that answers in a room.")
    parser.add_argument("room", nargs="?", default="example-chat")
    parser.add_argument("--name", default="bot")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    asked = parser.parse_args()
    try:
        asyncio.run(serve(asked.url, asked.name, asked.room))
    except (TidingsError, ValueError) as fault:
        sys.exit(f"ended: {fault}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
