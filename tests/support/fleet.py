"""`tidings up` for suites that are not Python: `python -m tests.support.fleet DIRECTORY`.

Prints one JSON object when it is ready, `{"url": …}`, and one for each line of its input:

    kill NAME      SIGKILL to `gateway-1`, `presence-1`, `nats-server`, …; it restarts by itself
    stop NAME      SIGTERM
    pause NAME     SIGSTOP, until `resume NAME`

Ends, and everything with it, when its input ends. Settings are taken from the environment.
"""

import json
import sys
from pathlib import Path

from tests.support.running import RunningTidings


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


def main(directory: str) -> None:
    """Run until the input ends."""
    with RunningTidings(Path(directory)) as tidings:
        tidings.wait_ready()
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
    main(sys.argv[1])
