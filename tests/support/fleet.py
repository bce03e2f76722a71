"""`tidings up` for suites that are not Python: `python -m tests.support.fleet DIRECTORY [application]`.

With `application` it runs with an application, which answers hooks (`hook_application`) and calls (`call_service`).

Prints one JSON object when it is ready, `{"url": …}`, and one for each line of its input:

    kill NAME      SIGKILL to `gateway-1`, `presence-1`, `nats-server`, …; it restarts by itself
    stop NAME      SIGTERM
    pause NAME     SIGSTOP, until `resume NAME`

Ends, and everything with it, when its input ends. Settings are taken from the environment.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from services.settings import Settings
from tests.support.hook_application import HookApplication
from tests.support.running import RunningTidings
from tidings_cli.local.die_with_parent import die_with_parent
from tidings_cli.local.servers import with_local_servers


def _say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _obey(tidings: RunningTidings, order: str, name: str) -> None:
    process = tidings.child(name)
    match order:
        case "kill":
            process.kill()
        case "stop":
            process.terminate()
        case "pause":
            process.suspend()
        case "resume":
            process.resume()
        case _:
            raise ValueError(f"no such order: {order}")


@contextmanager
def _call_service(directory: Path) -> Iterator[None]:
    """Run a service of the application on the bus of the deployment with this data."""
    settings = with_local_servers(Settings(data_dir=directory))
    command = [sys.executable, "-m", "tests.support.call_service", settings.nats_url, settings.prefix]
    process = subprocess.Popen(die_with_parent(command), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


def main(directory: str, *parts: str) -> None:
    """Run until the input ends."""
    path, settings = Path(directory), {}
    with ExitStack() as stack:
        if "application" in parts:
            hooks = stack.enter_context(HookApplication(path / "application.log"))
            settings = {f"TIDINGS_{name.upper()}": value for name, value in hooks.settings.items()}
            settings["TIDINGS_HOOKS"] = "join,publish"
        tidings = stack.enter_context(RunningTidings(path, **settings))
        tidings.wait_ready()
        if "application" in parts:
            stack.enter_context(_call_service(path))
        _say(url=tidings.url)
        for line in sys.stdin:
            order, _, name = line.strip().partition(" ")
            try:
                _obey(tidings, order, name)
            except (LookupError, ValueError) as fault:
                _say(error=f"{type(fault).__name__}: {fault}")
            else:
                _say(done=line.strip())
        tidings.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
