"""A bounded run of the coverage-guided fuzzer; `tests/fuzz` runs without a bound."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.support.requires import missing

_SECONDS = 8
SEEDS = [
    {"type": "room_message", "room": "a", "content": {"x": [1, "<b>", None]}, "echo": True, "id": "1"},
    {"type": "join_room", "room": "caf\u00e9", "since": {"epoch": "e", "seq": 1}},
    {"type": "subscribe", "channels": ["presence:a", "inbox"]},
    {"type": "direct_message", "targetUserId": "u", "content": 1.5},
    {"type": "refresh", "token": "t"},
]


def test_the_decoder(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        missing("atheris", "`uv sync --group fuzz`")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / f"json-{number}").write_bytes(b"\x00" + msgspec.json.encode(seed))
        (corpus / f"msgpack-{number}").write_bytes(b"\x01" + msgspec.msgpack.encode(seed))
    options = [f"-max_total_time={_SECONDS}", "-max_len=400", f"-artifact_prefix={tmp_path}/", str(corpus)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.decoder", *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "DONE" in done.stderr
