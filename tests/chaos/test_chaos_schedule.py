"""Every kind of fault in one run, in an order that changes daily; `make chaos` runs hundreds."""

from tests.chaos.load import StartLoad
from tests.chaos.schedule import KINDS, run_schedule
from tests.support.cluster import Cluster
from tidings_cli.verify.report import Kind

_SEED = 20_250


async def test_a_round_of_all_faults_loses_and_repeats_nothing(cluster: Cluster, load: StartLoad) -> None:
    async with load() as running:
        injected = await run_schedule(cluster, running, _SEED, len(KINDS), scale=0.3)
    assert injected.total() == len(KINDS)
    assert running.report.count(Kind.MISSING) == running.report.count(Kind.DUPLICATE) == 0
    assert all(gap.other_epoch for gap in running.report.gaps)
