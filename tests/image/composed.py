"""A running compose file of `deploy/`, with the image built here."""

import json
import os
import secrets
import signal
import threading
from pathlib import Path
from typing import Any, Self

from tests.image.engine import Engine
from tests.support.deadline import wait_until
from tests.support.docs import ROOT
from tidings_cli.local.processes import free_port

TRIED = ROOT / "deploy" / "compose.yaml"
PRODUCTION = ROOT / "deploy" / "compose.prod.yaml"
IMAGE = "localhost/tidings:0.1.0"
_BUILD_S = 600
_UP_S = 240
_HEALTH_S = 120.0
_ASK_EVERY_S = 1.0


def build(engine: Engine) -> None:
    """Build the image as the compose file names it."""
    engine.run(
        *("buildah", "bud", "--quiet", "--pull=never", "--format=docker", "--layers", "--tag", IMAGE),
        *("--build-arg", "REVISION=test", "--file", str(ROOT / "deploy" / "Dockerfile"), str(ROOT)),
        timeout_s=_BUILD_S,
    )


class Composed:
    """Services of a compose file, all or those named and what they depend on. A context manager.

    `port` of loopback is the load balancer's; `variables` are for the compose file.
    """

    def __init__(self, engine: Engine, file: Path, *services: str, **variables: str) -> None:
        self._engine = engine
        self._file = file
        self._services = services
        self.project = f"tidings-test-{secrets.token_hex(3)}"
        self.port = free_port()
        # A network of its own, so that another deployment on this machine does not interfere.
        subnet = f"10.213.{secrets.randbelow(100) + 100}.0/24"
        self._composing = Engine(
            engine.environment
            | {"TIDINGS_PORT": str(self.port), "HTTPS_PORT": str(self.port), "FRONT_SUBNET": subnet}
            | variables,
            engine.home,
        )
        self._ended = threading.Event()
        # Podman leaves it to systemd to ask containers for their health, and there may be none.
        self._asking = threading.Thread(target=self._ask_for_health, daemon=True)

    @property
    def host(self) -> str:
        """Where the published port is."""
        return "127.0.0.1"

    @property
    def url(self) -> str:
        """Where the load balancer answers."""
        return f"http://{self.host}:{self.port}"

    def compose(self, *arguments: str, timeout_s: float = 60) -> str:
        """Run podman-compose."""
        command = ("podman-compose", "--project-name", self.project, "--file", str(self._file))
        return self._composing.run(*command, *arguments, timeout_s=timeout_s)

    def container(self, service: str, number: int = 1) -> "Container":
        """Return a container by its service."""
        return Container(self._engine, f"{self.project}_{service}_{number}")

    def containers(self) -> list["Container"]:
        """Return all containers, whatever their state."""
        listed = self._engine.run(
            *("podman", "ps", "--all", "--format", "{{.Names}}"),
            *("--filter", f"label=io.podman.compose.project={self.project}"),
        )
        return [Container(self._engine, name) for name in listed.split()]

    def _ask_for_health(self) -> None:
        while not self._ended.wait(_ASK_EVERY_S):
            for container in self.containers():
                self._engine.succeeds("podman", "healthcheck", "run", container.name)

    def __enter__(self) -> Self:
        self._asking.start()
        try:
            self.compose("up", "--detach", "--no-build", *self._services, timeout_s=_UP_S)
            wait_until(self._all_healthy, "all containers to be healthy", _HEALTH_S)
        except BaseException as fault:
            fault.add_note(
                "\n".join(f"--- {one.name}: {one.health()}\n{one.logs()}" for one in self.containers())
            )
            self.__exit__()
            raise
        return self

    def _all_healthy(self) -> bool:
        return {one.health() for one in self.containers()} <= {"healthy", ""}

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._asking.join(30)
        self.compose("down", "--volumes", "--timeout", "15", timeout_s=180)


class Container:
    """One container."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    def inspect(self) -> dict[str, Any]:
        """Return what podman knows of it."""
        found: list[dict[str, Any]] = json.loads(self._engine.run("podman", "inspect", self.name))
        return found[0]

    def health(self) -> str:
        """Return its health; empty where it has no check."""
        state = self.inspect()["State"]
        return str(state.get("Health", {}).get("Status", ""))

    def logs(self) -> str:
        """Return what it wrote, to both of its outputs."""
        path = Path(str(self.inspect()["HostConfig"]["LogConfig"]["Path"]))
        return path.read_text(errors="replace") if path.is_file() else ""

    def execute(self, *command: str, check: bool = True) -> str:
        """Run a program in it, and return its output; without `check` also where it fails."""
        return self._engine.run("podman", "exec", self.name, *command, check=check)

    def python(self, program: str) -> str:
        """Run a program with the packages of the image."""
        return self.execute("python", "-c", program)

    def crash(self) -> None:
        """Kill its process, behind podman's back."""
        os.kill(int(self.inspect()["State"]["Pid"]), signal.SIGKILL)

    def stop(self) -> int:
        """Stop it as it wants to be stopped, and return its exit code."""
        self._engine.run("podman", "stop", "--time", "15", self.name, timeout_s=40)
        return int(self.inspect()["State"]["ExitCode"])

    def start(self) -> None:
        """Start it again."""
        self._engine.run("podman", "start", self.name)
