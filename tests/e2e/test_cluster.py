"""A search on a Ray cluster: two nodes with a core each, as processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Workplace, make_workplace
from tuner.journal.events import Reported, TrialBegun
from tuner.journal.journal import read_journal

pytestmark = pytest.mark.slow

# every trial is drawn and trained to its end whatever the others do
SEARCH = ("search", "--space", "small.yaml", "--trials", "6", "--set", "search.sampler=random")
SEARCH += ("--set", "search.scheduler=none", "--set", "confirm=off", "--workers", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def trained(home: Path, name: str) -> dict[int, list[Any]]:
    """What each trial of a search is and reported."""
    trials: dict[int, list[Any]] = {}
    for event in read_journal(home / "searches" / name):
        if isinstance(event, TrialBegun):
            trials[event.number] = [event.spec]
        elif isinstance(event, Reported):
            report = event.report
            values = report.step, report.status, report.val_loss, report.train_loss
            trials[event.number].append(values)
    return trials


def test_search_on_a_cluster_gives_the_bits_of_a_local_one(place: Workplace, cluster: Any) -> None:
    here = place.tuner(*SEARCH, "--name", "here")
    assert here.status == 0, here.err
    there = place.tuner(*SEARCH, "--name", "there", "--fresh", "--address", cluster.address)
    assert there.status == 0, there.err
    assert f"joining the Ray cluster at {cluster.address}" in there.err
    assert trained(place.home, "here") == trained(place.home, "there")
    assert len(trained(place.home, "there")) == 6
    again = place.tuner(*SEARCH, "--name", "there", "--address", cluster.address)
    assert "there has finished already" in again.err


def test_address_that_is_no_cluster_is_refused(place: Workplace) -> None:
    for address, reason in (
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9: Connection refused"),
        ("ray://head:10001", "a search runs on a node of its cluster"),
        ("head", "use auto, local, or HOST:PORT"),
    ):
        run = place.refused(*SEARCH, "--address", address)
        assert reason in run.err
        assert len(run.err.splitlines()) == 1
