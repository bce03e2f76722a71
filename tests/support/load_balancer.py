"""The real HAProxy with the configuration of `deploy/`, in front of gateways that run here."""

import os
import re
import subprocess
from pathlib import Path
from typing import Self

from tests.support.cluster import ServiceProcess
from tests.support.deadline import wait_until
from tests.support.docs import ROOT
from tests.support.name_server import NameServer
from tests.support.requires import need
from tidings_cli.local.die_with_parent import die_with_parent
from tidings_cli.local.processes import free_port

CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
_NAME = "gateway.test"
_STOP_S = 10.0
_HEALTH = re.compile(r"^Server gateways/(\S+) (?:\(.*\) )?is (UP|DOWN)", re.MULTILINE)


class LoadBalancer:
    """Finds the gateways by name, as it does among containers; they listen on one port of several loopback addresses."""

    def __init__(self, directory: Path, gateways: list[ServiceProcess], **environment: str) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        self.watch_port = free_port()
        self._gateways = gateways
        self._names = NameServer(_NAME, [gateway.host for gateway in gateways])
        self._log = directory / "haproxy.log"
        self._errors = directory / "haproxy.err"
        self._environment = {
            **os.environ,
            "LB_PORT": str(self.port),
            "LB_ADMIN": f"127.0.0.1:{self.admin_port}",
            "LB_WATCH": f"127.0.0.1:{self.watch_port}",
            "LB_GATEWAYS": f"{_NAME}:{gateways[0].port}",
            "LB_NAMESERVER": self._names.address,
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    def log_text(self) -> str:
        """Return what it logged: a line for each request that ended, and for each change of a gateway's health."""
        return self._log.read_text(errors="replace")

    def healthy(self) -> int:
        """Return how many gateways it takes to be healthy now."""
        return list(dict(_HEALTH.findall(self.log_text())).values()).count("UP")

    def __enter__(self) -> Self:
        program = need("haproxy", "Debian: apt-get install haproxy")
        self._names.__enter__()
        with self._log.open("ab") as log, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                die_with_parent([program, "-W", "-db", "-f", str(CONFIGURATION)]),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
            )
        try:
            wait_until(
                lambda: self.healthy() >= len(self._gateways) or self._process_ended(),
                "all gateways to be found healthy",
            )
        except AssertionError as late:
            self.__exit__()
            raise AssertionError(f"{late}; HAProxy said:\n{self._errors.read_text()}") from None
        return self

    def _process_ended(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._errors.read_text()
        return False

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_S)
        self._names.__exit__()
