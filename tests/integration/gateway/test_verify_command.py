"""`tidings verify` against running gateways, and on a stored history."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import ServiceProcess
from tests.support.histories import write_history
from tidings_cli.verify.history import ReceivedRecord, read_history


def verify(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tidings_cli", "verify", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_deployment_is_verified_and_its_history_kept(
    gateways: tuple[ServiceProcess, ServiceProcess], tmp_path: Path
) -> None:
    history = tmp_path / "history.jsonl"
    urls = [argument for gateway in gateways for argument in ("--url", gateway.url)]
    done = verify(*urls, "--duration", "1s", "--members", "6", "--keep", str(history))
    assert done.returncode == 0, done.stderr
    assert "Every acknowledged message reached every member once, in order." in done.stdout

    again = verify("--check", str(history))
    assert (again.returncode, again.stdout) == (0, done.stdout)

    events = list(read_history(history))
    del events[next(index for index, event in enumerate(events) if isinstance(event, ReceivedRecord))]
    write_history(history, events)
    tampered = verify("--check", str(history))
    assert tampered.returncode == 1
    assert "1 guarantees broken" in tampered.stdout
    assert "missing" in tampered.stdout


def test_ephemeral_rooms_prove_nothing(gateways: tuple[ServiceProcess, ServiceProcess]) -> None:
    done = verify("--url", gateways[0].url, "--namespace", "live")
    assert done.returncode == 1
    assert "ephemeral" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check", "no-such-file"], "no-such-file: No such file or directory"),
        (["--url", "http://127.0.0.1:1", "--duration", "soon"], "'soon' is not a duration"),
    ],
)
def test_errors_are_reported(arguments: list[str], said: str) -> None:
    done = verify(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
