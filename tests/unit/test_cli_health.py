"""`tidings health`, which containers run every few seconds."""

import asyncio
import subprocess
import sys

import pytest

from services.health import HealthServer
from services.settings import Settings


async def _asked(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command as containers do, beside the event loop that answers it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tidings_cli",
        "health",
        *arguments,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  # what containers bind
async def test_it_asks_where_the_process_answers(host: str) -> None:
    ready = False
    server = HealthServer(Settings(health_host=host), "test", {"bus": lambda: ready})
    await server.start()
    try:
        where = {"TIDINGS_HEALTH_PORT": str(server.port), "TIDINGS_HOST": host}
        assert await _asked(**where) == (0, '{"status":"ok"}\n', "")
        code, said, _ = await _asked("--ready", **where)
        assert (code, '"bus":false' in said) == (1, True)
        ready = True
        assert (await _asked("--ready", f"--port={server.port}"))[0] == 0
    finally:
        await server.close()


async def test_a_missing_answer_is_reported_clearly() -> None:
    code, out, err = await _asked(TIDINGS_PORT="1")
    assert (code, out) == (1, "")
    assert err.startswith("nothing listens on port 1: no Tidings process runs there")
    assert "Traceback" not in err


def test_it_loads_little() -> None:
    """Containers run it every few seconds on the cores that serve clients."""
    program = (
        "import sys; from tidings_cli import health;"
        "heavy = {'typer', 'asyncio', 'pydantic', 'structlog'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
