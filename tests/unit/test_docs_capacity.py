"""The worked examples of the capacity page follow from the costs that it states."""

import importlib.util
import re
import sys
from typing import ClassVar

import pytest

from tests.support.docs import ROOT


@pytest.fixture(scope="module")
def capacity():  # type: ignore[no-untyped-def]
    path = ROOT / "scripts" / "capacity.py"
    spec = importlib.util.spec_from_file_location("capacity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["capacity"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["capacity"]


def test_the_page_is_up_to_date(capacity) -> None:  # type: ignore[no-untyped-def]
    page = capacity.PAGE.read_text(encoding="utf-8")
    assert capacity.render(page, capacity.MEASURED.read_text(encoding="utf-8")) == page, "run: make docs"


def test_costs_are_taken_from_what_was_measured(capacity) -> None:  # type: ignore[no-untyped-def]
    performance = capacity.MEASURED.read_text(encoding="utf-8")
    anew = re.sub(r"(CPU to publish and acknowledge, µs \| [\d.]+ \| )[\d.]+", r"\g<1>27.5", performance)
    page = capacity.render(capacity.PAGE.read_text(encoding="utf-8"), anew)
    assert capacity.costs(page)["gateway_publish_us"] == 27.5


def test_every_cost_is_used(capacity) -> None:  # type: ignore[no-untyped-def]
    class Asked(dict[str, float]):
        names: ClassVar[set[str]] = set()

        def __getitem__(self, name: str) -> float:
            self.names.add(name)
            return super().__getitem__(name)

    stated = Asked(capacity.costs(capacity.PAGE.read_text(encoding="utf-8")))
    capacity.need(10_000, stated)
    assert set(stated) == stated.names


def test_twice_the_connections_need_twice_the_resources(capacity) -> None:  # type: ignore[no-untyped-def]
    stated = capacity.costs(capacity.PAGE.read_text(encoding="utf-8"))
    one, two = capacity.need(1_000_000, stated), capacity.need(2_000_000, stated)
    assert two.publishes_per_s == 2 * one.publishes_per_s
    assert 1.9 < two.gateways / one.gateways < 2.3
    assert 2 <= two.nats_out_mbit / one.nats_out_mbit < 2.3  # rooms are spread over more gateways
    assert two.redis_mib == 2 * one.redis_mib


def test_a_small_deployment_has_a_gateway_to_spare(capacity) -> None:  # type: ignore[no-untyped-def]
    stated = capacity.costs(capacity.PAGE.read_text(encoding="utf-8"))
    assert capacity.need(10, stated).gateways == 3


def test_a_dearer_delivery_takes_more_gateways(capacity) -> None:  # type: ignore[no-untyped-def]
    stated = capacity.costs(capacity.PAGE.read_text(encoding="utf-8"))
    dear = {**stated, "gateway_deliver_us": 200.0}
    assert capacity.need(1_000_000, dear).gateways > 2 * capacity.need(1_000_000, stated).gateways
