"""A search on a Ray cluster: a head and a node that works, as processes of this machine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Workplace, make_workplace
from tuner.journal.events import NodeLost, Reported, TrialBegun
from tuner.journal.journal import read_journal

pytestmark = pytest.mark.slow

# every trial is drawn and trained to its end whatever the others do
SEARCH = ("search", "--space", "small.yaml", "--trials", "4", "--set", "search.sampler=random")
SEARCH += ("--set", "search.scheduler=none", "--set", "confirm=off", "--workers", "2")
SEARCH += ("--set", "budget.tokens=40_000")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    fast = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": fast})
    cluster.add_node(num_cpus=2)
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
    """Also when the node is lost: its trials go on from their last reports on another one."""
    calm = place.tuner(*SEARCH, "--name", "calm")
    assert calm.status == 0, calm.err
    node = cluster.list_all_nodes()[-1]
    address = cluster.address
    with place.start(*SEARCH, "--name", "storm", "--fresh", "--address", address) as run:
        lines = lines_until(run, f"joining the Ray cluster at {address}")
        wait_for_reports(place.home, "storm", 4)
        cluster.add_node(num_cpus=2)
        cluster.remove_node(node, allow_graceful=False)
        lines += lines_until(run, "has restarted")
        _, rest = run.communicate(timeout=300)
    assert run.returncode == 0, rest
    assert any("died and restarts" in line for line in lines)
    events = read_journal(place.home / "searches" / "storm")
    assert [e.node_id for e in events if isinstance(e, NodeLost)] == [node.node_id]
    trials = trained(place.home, "storm")
    assert len(trials) == 4
    assert trials == trained(place.home, "calm")
    again = place.tuner(*SEARCH, "--name", "storm", "--address", address)
    assert "storm has finished already" in again.err


def test_doctor_looks_at_each_node(place: Workplace, cluster: Any) -> None:
    """The head has no core for a worker, so there is nothing to look at."""
    cluster.add_node(num_cpus=1)
    run = place.tuner("doctor", "--cluster", "--address", cluster.address, "--json")
    assert run.status == 0, run.err
    nodes = json.loads(run.out.splitlines()[-1])["nodes"]
    assert sorted(node["cpus"] for node in nodes) == [1, 2]
    for node in nodes:
        assert (node["gpus"], node["problem"]) == (0, None)
        assert abs(node["seconds_ahead"]) < 10  # all are this machine
    assert run.err.count("versions and folder as here") == 2


def wait_for_reports(home: Path, name: str, number: int) -> None:
    deadline = time.monotonic() + 120
    while sum(isinstance(event, Reported) for event in journal(home, name)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def journal(home: Path, name: str) -> list[Any]:
    folder = home / "searches" / name
    return read_journal(folder) if folder.is_dir() else []


def lines_until(run: subprocess.Popen[str], text: str) -> list[str]:
    """Read the progress of a search up to a line."""
    lines: list[str] = []
    assert run.stderr is not None
    while not lines or text not in lines[-1]:
        lines.append(run.stderr.readline())
        assert lines[-1], lines
    return lines


def test_address_that_is_no_cluster_is_refused(place: Workplace) -> None:
    for address, reason in (
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9: Connection refused"),
        ("ray://head:10001", "a search runs on a node of its cluster"),
        ("head", "use auto, local, or HOST:PORT"),
    ):
        run = place.refused(*SEARCH, "--address", address)
        assert reason in run.err
        assert len(run.err.splitlines()) == 1
