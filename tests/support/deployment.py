"""Gateways and services over the session's servers, under a prefix of their own: for tests that break nothing.

Tests that kill, pause or cut off use `tests.support.cluster`, which brings its own servers.
"""

import subprocess
from pathlib import Path
from typing import Self

import psutil

from tests.support.cluster import ServiceProcess

SESSION_SECRET = "the-same-on-all-gateways-0123456789"
_STOP_S = 15.0


class Deployment:
    """Gateways that know nothing of each other, one presence_svc and one metrics_svc. A context manager."""

    def __init__(
        self, directory: Path, *, gateways: int = 2, services: bool = True, **settings: object
    ) -> None:
        self._directory = directory
        self._settings = {"session_secret": SESSION_SECRET, **settings}
        modules = ("presence_svc", "metrics_svc") if services else ()
        self.services = [self._make(module, module) for module in modules]
        self.gateways = [self._make(f"gateway-{number}", "gateway") for number in range(1, gateways + 1)]

    def _make(self, name: str, module: str, **settings: object) -> ServiceProcess:
        chosen = {f"TIDINGS_{key.upper()}": str(value) for key, value in (self._settings | settings).items()}
        return ServiceProcess(name, module, self._directory / f"{name}.log", chosen)

    def extra_gateway(self, name: str, **settings: object) -> ServiceProcess:
        """Start one more gateway, with settings of its own; it ends with the deployment or before."""
        gateway = self._make(name, "gateway", **settings)
        self.gateways.append(gateway)
        return gateway.start()

    def __enter__(self) -> Self:
        processes = [*self.services, *self.gateways]
        try:
            for process in processes:
                process.spawn()
            for process in processes:
                process.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything, by force what takes too long."""
        for process in [*self.gateways, *self.services]:
            process.terminate()
        for process in [*self.gateways, *self.services]:
            if process.running:
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()

    def faults(self) -> list[str]:
        """Return what the gateways logged that is a fault of ours: tracebacks, and failed tasks or callbacks."""
        signs = ("Traceback", '"exception"', "failed", "unhandled fault")
        return [
            f"{gateway.name}: {line}"
            for gateway in self.gateways
            for line in gateway.log_text().splitlines()
            if any(sign in line for sign in signs)
        ]


def websocket_url(gateway: ServiceProcess, query: str = "", path: str = "/ws") -> str:
    """Return where a gateway takes WebSocket connections."""
    return f"ws://127.0.0.1:{gateway.port}{path}" + (f"?{query}" if query else "")


def resident_bytes(process: ServiceProcess) -> int:
    """Return the memory that a process occupies."""
    return int(psutil.Process(process.pid).memory_info().rss)
