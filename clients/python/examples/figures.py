"""Metrics of an application, pushed and followed.

`python figures.py push --source shop` sends this machine's load and a count each second; `python figures.py watch` prints
the metrics of all sources together, and the alerts.

Shows: the HTTP API with typed answers, metrics and alerts as streams, an API key as the token.
"""

import argparse
import asyncio
import os
import random
import sys

from tidings_client import Alert, TidingsClient, TidingsError


async def push(client: TidingsClient, source: str, seconds: float) -> None:
    """Send a report each second. The next report includes the counts of a lost one."""
    requests = 0
    while True:
        requests += random.randint(5, 20)  # what an application would count
        report = {
            "source": source,
            "requests": requests,
            "latencies": [random.uniform(1, 30) for _ in range(5)],
            "gauges": {"load": os.getloadavg()[0]},
        }
        try:
            result = await client.request("POST /api/metrics", body=report)
        except TidingsError as fault:
            if not fault.retryable:
                raise
            print(f"not accepted: {fault}", flush=True)
        else:
            print(f"pushed {requests} requests, {result.accepted} accepted", flush=True)
            requests = 0
        await asyncio.sleep(seconds)


async def watch(client: TidingsClient) -> None:
    """Print a line each second, and each alert when it begins and ends."""

    def show(alert: Alert, mark: str) -> None:
        print(f"{mark} {alert.type}: {alert.message}", flush=True)

    client.alerts.raises.listen(lambda alert: show(alert, "!!"))
    client.alerts.resolves.listen(lambda alert: show(alert, "ok"))
    await client.connect()
    with client.alerts.follow(), client.metrics.follow():
        async for record in client.metrics.records.stream():
            print(
                f"cpu {record.cpu:5.1f} %   memory {record.memory:5.1f} %   {record.requests:6.1f} requests/s   "
                f"{record.errors:5.1f} errors/s   p99 {record.latency_p99:7.2f} ms",
                flush=True,
            )


async def run(asked: argparse.Namespace) -> None:
    """Push or watch."""
    client = TidingsClient(asked.url, token=os.environ.get("TIDINGS_TOKEN"))
    try:
        await (push(client, asked.source, asked.every) if asked.what == "push" else watch(client))
    finally:
        await client.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Push metrics of an application, or follow all metrics.")
    parser.add_argument("what", choices=["push", "watch"])
    parser.add_argument("--source", default="example")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two reports")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    try:
        asyncio.run(run(parser.parse_args()))
    except (TidingsError, ValueError) as fault:
        sys.exit(f"refused: {fault}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
