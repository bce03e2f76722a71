"""Traces that are off cost nothing: no process loads OpenTelemetry, and the bus is the plain one."""

import subprocess
import sys

import pytest

from services.bus.client import Bus
from services.settings import Settings
from services.tracing.exporting import bus_class, traces_url
from tests.support.docs import ROOT

_LOAD = """
import sys
import {main}.__main__
from services.lifecycle import Lifecycle
from services.settings import Settings
from services.tracing.exporting import bus_class, open_traces
assert open_traces(Settings(), "gateway", "g1", Lifecycle(1.0)) is None
bus_class(None)
print(*sys.modules)
"""


@pytest.mark.parametrize("main", ["gateway", "presence_svc", "metrics_svc"])
def test_a_process_without_traces_loads_no_tracing(main: str) -> None:
    command = [sys.executable, "-c", _LOAD.format(main=main)]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    modules = set(loaded.stdout.split())
    assert not {"services.tracing.spans", "services.tracing.bus", "gateway.tracing"} & modules
    # redis-py loads OpenTelemetry where it is installed; a gateway has no redis-py.
    assert main != "gateway" or not {"opentelemetry.trace", "opentelemetry.sdk"} & modules


def test_the_bus_is_the_plain_one() -> None:
    assert not Settings().traces_endpoint
    assert bus_class(None) is Bus


def test_an_endpoint_without_a_path_means_that_of_the_protocol() -> None:
    assert traces_url("http://collector:4318") == "http://collector:4318/v1/traces"
    assert traces_url("https://collector:4318/") == "https://collector:4318/v1/traces"
    assert traces_url("https://host/otlp/v1/traces") == "https://host/otlp/v1/traces"
