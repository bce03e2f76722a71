"""Rewrite docs/capacity.md: `make docs`.

Measured costs come from docs/performance.md, the others from docs/capacity.md itself. The worked examples are calculated
from both. `python scripts/capacity.py --check` fails if the page is out of date.
"""

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "capacity.md"
MEASURED = DOCS / "performance.md"
SIZES = (10_000, 100_000, 1_000_000)

# The load of the examples. Change it here, and the page's sentence about it.
MEMBERS = 10  # of each room
PUBLISH_EVERY_S = 60  # each user
CONNECT_EVERY_S = 3600  # each user: networks change, laptops sleep
KEPT_S = 600  # of a durable namespace, unless configured otherwise

# Allowed utilisation.
GATEWAY_CPU = 0.6  # of its core: the rest is for bursts, and for the clients of a failed gateway
GATEWAY_CONNECTIONS = 50_000  # of one gateway: they reconnect at once when it dies

_COST = re.compile(r"^\| `(?P<name>\w+)` \| (?P<value>[\d.]+) \|", re.MULTILINE)
_MEASURED = re.compile(
    r"^\| (?P<what>[^|]+?), µs \| (?P<ephemeral>[\d.,]+) \| (?P<durable>[\d.,]+) \|$", re.MULTILINE
)
_EXAMPLES = re.compile(r"(<!-- capacity: examples -->\n).*?(<!-- capacity: end -->)", re.DOTALL)


@dataclass(frozen=True)
class Need:
    """The resources for a number of connections, under the load above."""

    connections: int
    gateways: int
    gateway_cores: float
    gateway_mib_each: float
    publishes_per_s: float
    receipts_per_s: float
    deliveries_per_s: float
    nats_cores: float
    nats_mib: float
    nats_in_mbit: float
    nats_out_mbit: float
    stored_mib: float
    redis_mib: float
    redis_cores: float
    presence_cores: float


def costs(page: str) -> dict[str, float]:
    """Return the page's costs by name."""
    return {found["name"]: float(found["value"]) for found in _COST.finditer(page)}


def measured(performance: str) -> dict[str, float]:
    """Return the measured costs of durable messages by name."""
    found = {row["what"]: float(row["durable"].replace(",", "")) for row in _MEASURED.finditer(performance)}
    publish = found["CPU to publish and acknowledge"]
    deliver = found["CPU of a delivery, messages one by one"]
    return {
        "gateway_publish_us": publish,
        "gateway_deliver_us": deliver,
        # The rest of a message from one client to another. The three figures come from separate runs.
        "gateway_receive_us": max(1.0, found["CPU of a message to one other member"] - publish - deliver),
        "gateway_connect_us": found["CPU to connect and join"],
        "nats_store_us": found["NATS for it"],
    }


def _with(page: str, measurements: dict[str, float]) -> str:
    """Return the page with the cells of these costs replaced."""
    for name, value in measurements.items():
        row = re.compile(rf"^(\| `{name}` \| )[\d.]+( \|)", re.MULTILINE)
        page, count = row.subn(rf"\g<1>{value:.3g}\g<2>", page)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} rows for {name}")
    return page


def need(connections: int, cost: dict[str, float]) -> Need:
    """Return the resources for `connections`. Iterates, since CPU and number of gateways depend on each other."""
    publishes = connections / PUBLISH_EVERY_S
    connects = connections / CONNECT_EVERY_S
    deliveries = publishes * (MEMBERS - 1)
    gateways = 2
    while True:
        # The number of gateways with at least one member of a room, with members spread at random.
        per_message = gateways * (1 - (1 - 1 / gateways) ** MEMBERS)
        receipts = publishes * per_message
        micros = (
            publishes * cost["gateway_publish_us"]
            + receipts * cost["gateway_receive_us"]
            + deliveries * cost["gateway_deliver_us"]
            + connections * cost["gateway_idle_us_per_s"]
            + connects * cost["gateway_connect_us"]
        )
        wanted = max(2, math.ceil(micros / 1e6 / GATEWAY_CPU), math.ceil(connections / GATEWAY_CONNECTIONS))
        if wanted <= gateways:
            break
        gateways = wanted
    gateways += 1  # one may be down
    room_share = min(1.0, per_message / MEMBERS)  # of a room on a gateway, for each of its connections
    each_kib = cost["gateway_connection_kib"] + room_share * cost["gateway_room_kib"]
    return Need(
        connections=connections,
        gateways=gateways,
        gateway_cores=micros / 1e6,
        gateway_mib_each=cost["gateway_base_mib"] + connections * each_kib / 1024 / (gateways - 1),
        publishes_per_s=publishes,
        receipts_per_s=receipts,
        deliveries_per_s=deliveries,
        nats_cores=(publishes * cost["nats_store_us"] + receipts * cost["nats_send_us"]) / 1e6,
        nats_mib=connections * (cost["nats_connection_kib"] + room_share * cost["nats_room_kib"]) / 1024,
        nats_in_mbit=publishes * cost["nats_in_bytes"] * 8 / 1e6,
        nats_out_mbit=(publishes * cost["nats_ack_bytes"] + receipts * cost["nats_out_bytes"]) * 8 / 1e6,
        stored_mib=publishes * KEPT_S * cost["nats_stored_bytes"] / 2**20,
        redis_mib=connections * cost["redis_connection_kib"] / 1024,
        redis_cores=2 * connects * cost["redis_change_us"] / 1e6,
        presence_cores=2 * connects * cost["presence_change_us"] / 1e6,
    )


def _size(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def _cores(value: float) -> str:
    if value < 0.01:
        return "< 0.01"
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def table(needs: list[Need]) -> str:
    """Return the examples as a table, one column for each size."""
    rows = [
        ("messages published / received by gateways / delivered, each second", [f"{n.publishes_per_s:,.0f} / {n.receipts_per_s:,.0f} / {n.deliveries_per_s:,.0f}" for n in needs]),
        ("**gateways** (one core each; one of them may be down)", [f"**{n.gateways}**" for n in needs]),
        ("cores that all gateways use together", [_cores(n.gateway_cores) for n in needs]),
        ("memory of one gateway", [_size(n.gateway_mib_each) for n in needs]),
        ("NATS: cores", [_cores(n.nats_cores) for n in needs]),
        ("NATS: memory", [_size(n.nats_mib) for n in needs]),
        ("NATS: network in / out, Mbit/s", [f"{n.nats_in_mbit:.1f} / {n.nats_out_mbit:,.0f}" for n in needs]),
        ("NATS: stored, on each server that has a copy", [_size(n.stored_mib) for n in needs]),
        ("Redis: memory for presence", [_size(n.redis_mib) for n in needs]),
        ("Redis / presence_svc: cores", [f"{_cores(n.redis_cores)} / {_cores(n.presence_cores)}" for n in needs]),
    ]  # fmt: skip
    head = "| | " + " | ".join(f"{n.connections:,}" for n in needs) + " |"
    lines = [head, "|---" * (len(needs) + 1) + "|"]
    lines += [f"| {what} | {' | '.join(cells)} |" for what, cells in rows]
    return "\n".join(lines) + "\n"


def render(page: str, performance: str) -> str:
    """Return the page with new costs and examples."""
    page = _with(page, measured(performance))
    examples = table([need(size, costs(page)) for size in SIZES])
    return _EXAMPLES.sub(lambda found: f"{found[1]}{examples}{found[2]}", page)


def main() -> int:
    """Write the page, or with `--check` compare it."""
    page = PAGE.read_text(encoding="utf-8")
    new = render(page, MEASURED.read_text(encoding="utf-8"))
    if "--check" in sys.argv[1:]:
        if new != page:
            sys.stderr.write("docs/capacity.md does not follow from what was measured; run: make docs\n")
            return 1
        return 0
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
