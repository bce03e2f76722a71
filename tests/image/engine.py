"""Podman and buildah, with images, containers and networks of their own.

They run where there is no systemd (health checks are then for somebody else to run), where cgroups are of the first
kind (runc takes them, crun does not), and within the limits of the shell they are started from.
"""

import fcntl
import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support.deadline import wait_until
from tests.support.requires import missing, need

_PROGRAMS = ("podman", "buildah", "podman-compose")
_DEBIAN = "podman buildah runc netavark aardvark-dns iptables podman-compose debootstrap"
# Kept between runs, for what takes long: what stands in for base images.
_HOME = Path("/var/tmp/tidings-image-test")  # noqa: S108  # root's own, see `prepared`

_OTHER_RUN_S = 300
_kept_open: list[IO[str]] = []


@dataclass(frozen=True, slots=True)
class Engine:
    """How the programs are called: `environment` makes them use storage and settings of their own."""

    environment: dict[str, str]
    home: Path

    def run(self, *command: str, timeout_s: float = 60, check: bool = True) -> str:
        """Run a program and return what it printed, without the line break at its end.

        Raises:
            AssertionError: its exit code is not 0 and `check` is set; with all that it said.
        """
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout.rstrip("\n")

    def succeeds(self, *command: str, timeout_s: float = 60) -> bool:
        """Say whether a program ends with exit code 0."""
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
        )
        return done.returncode == 0


def prepared() -> Engine:
    """Return an engine, or skip (fail, where everything must run) and say what to install."""
    for program in _PROGRAMS:
        need(program, f"Debian: apt-get install {_DEBIAN}")
    if os.geteuid() != 0:
        missing("root", "to make roots that stand in for base images, and networks")
    _HOME.mkdir(mode=0o700, exist_ok=True)
    if _HOME.stat().st_uid != 0 or _HOME.is_symlink():
        raise AssertionError(f"{_HOME} belongs to somebody else")
    storage = _HOME / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{_HOME}/storage"\nrunroot = "{_HOME}/run"\n'
    )
    settings = _HOME / "containers.conf"
    settings.write_text(_containers_conf())
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")},
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF_OVERRIDE": str(settings),
        "BUILDAH_ISOLATION": "chroot",
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }
    engine = Engine(environment, _HOME)
    _have_it_alone()
    # What a run that was killed left behind. Podman refuses the first time where the containers' monitors were killed
    # too: it is then that it notices.
    remove = ("podman", "rm", "--all", "--force", "--time=0")
    engine.succeeds(*remove, timeout_s=120)
    engine.run(*remove, timeout_s=120)
    engine.run("podman", "volume", "prune", "--force")
    engine.run("podman", "network", "prune", "--force")
    return engine


def _have_it_alone() -> None:
    """Keep the storage until this process ends; wait for another run on this machine to end, with a time limit."""
    lock = (_HOME / "lock").open("w")
    _kept_open.append(lock)

    def locked() -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    wait_until(locked, f"another run of these tests to let go of {_HOME}", _OTHER_RUN_S)


def _containers_conf() -> str:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    # More than the shell's own hard limits is refused, and that is what they ask for by default.
    limits = [f"nofile={files}:{files}"] if files > 0 else []
    limits += [f"nproc={processes}:{processes}"] if processes > 0 else []
    quoted = ", ".join(f'"{limit}"' for limit in limits)
    runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
    firewall = 'firewall_driver = "iptables"\n' if shutil.which("iptables") else ""
    return (
        f"[engine]\n{runtime}"
        f'[network]\n{firewall}network_config_dir = "{_HOME}/networks"\n'
        f"[containers]\ndefault_ulimits = [{quoted}]\n"
    )
