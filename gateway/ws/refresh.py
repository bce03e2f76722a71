"""A connection goes on with new credentials: they are verified, and what they do not allow any more is left."""

from typing import TYPE_CHECKING

from gateway.auth.expiry import to_ms
from gateway.auth.identity import AuthRefused, Identity
from gateway.channels import subscribe
from gateway.client.commands import ClientState, error_reply
from gateway.client.effects import Renew
from services.bus.errors import BusError
from services.wire import server
from services.wire.codes import ErrorCode
from services.wire.records import UNSET

if TYPE_CHECKING:
    from gateway.gateway import Gateway
    from gateway.ws.connection import Connection


def begin_renewal(
    gateway: "Gateway", connection: "Connection", session: ClientState, effect: Renew, started: float
) -> None:
    """Verify, and answer `ack` or why not. A refused renewal changes nothing: the old credentials go on."""
    if connection.refreshing:
        reply = error_reply(ErrorCode.CONFLICT, "another `refresh` is under way", effect.id)
        connection.reply(reply, started)
        return
    connection.refreshing = True
    gateway.tasks.spawn(_renew(gateway, connection, session, effect, started), "renew credentials")


async def _renew(
    gateway: "Gateway", connection: "Connection", session: ClientState, effect: Renew, started: float
) -> None:
    try:
        identity = await gateway.authenticator.refresh(
            session.identity, token=effect.token, ticket=effect.ticket, origin=connection.origin
        )
    except AuthRefused as refusal:
        connection.reply(error_reply(refusal.code, refusal.message, effect.id), started)
    except BusError:
        text = "the ticket cannot be looked up now"
        connection.reply(error_reply(ErrorCode.UNAVAILABLE, text, effect.id), started)
    else:
        if connection.connection_id in gateway.connections:  # else it closed meanwhile
            _go_on_as(gateway, connection, session, identity)
            expires_at = UNSET if identity.expires_at is None else to_ms(identity.expires_at)
            connection.reply(server.Ack(id=effect.id, expires_at=expires_at), started)
            gateway.connections.renew(connection, identity)
    finally:
        connection.refreshing = False


def _go_on_as(gateway: "Gateway", connection: "Connection", session: ClientState, identity: Identity) -> None:
    rooms, names = session.regrant(identity)
    for room in rooms:
        if gateway.rooms.leave(connection.connection_id, room):
            gateway.presence.left(connection.connection_id, room)
        connection.send(server.LeftRoom(room=room))
    if names:
        subscribe.unfollow(gateway, connection.connection_id, names)
        connection.send(server.Unsubscribed(channels=names))
