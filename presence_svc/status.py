"""How the statuses of several connections become the one that others see."""

from services.wire.records import Status

# The order in which a status wins. `busy` is chosen, never a default, so it stays whatever other
# connections say; of the others the more available one wins.
RANK = {Status.AWAY: 1, Status.ONLINE: 2, Status.BUSY: 3}
STATUS_OF_RANK = {rank: status for status, rank in RANK.items()}
