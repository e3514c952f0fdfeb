"""Workers that are killed, frozen or broken, in a real Ray: each report once, bit for bit."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoints import store
from model.checkpoints.store import CheckpointRef
from model.corpus.pairs import PairDataset
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec
from tuner.workers.client import TrialClient
from tuner.workers.cluster import Workers, local_ray, make_workers
from tuner.workers.watchdog import Watchdog, WorkerChange, WorkerEvent

pytestmark = pytest.mark.slow
Tokens = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    with local_ray(0):
        yield


def in_peace(data: Any, spec: TrialSpec) -> list[dict[str, float]]:
    engine = Engine(*data, decode=str)
    return [r.metrics() for r in engine.run([spec])]


class Search:
    """Some trials on one worker, each with a client of its own, and a watchdog."""

    def __init__(self, workers: Workers, specs: Sequence[TrialSpec], timeout: float = 60.0) -> None:
        self.worker, self._specs = workers.handles[0], specs
        self.dog = Watchdog(workers.handles, timeout)
        self.changes: list[WorkerChange] = []
        self.reports: dict[int, list[Report]] = {number: [] for number in range(len(specs))}
        pool = ThreadPoolExecutor(len(specs))
        self._futures: list[Future[None]] = [
            pool.submit(self._follow, number) for number in self.reports
        ]
        pool.shutdown(wait=False)

    def _follow(self, number: int) -> None:
        job: Mapping[str, Any] = {
            "number": number,
            "spec": self._specs[number].model_dump_json(),
            "after": 0,
            "source": None,
            "reports": None,
        }
        client = TrialClient(self.worker, job)
        reports = self.reports[number]
        while not reports or reports[-1].status is Status.TRAINING:
            reports.append(client.next_report())
        self.worker.stop.remote(str(number))

    def until(self, is_so: Callable[[], bool]) -> None:
        """Look about all the time, as the driver does."""
        deadline = time.monotonic() + 300  # only a hang takes so long
        while not is_so():
            assert time.monotonic() < deadline, (self.changes, self.reports)
            self.changes += self.dog.check()
            time.sleep(0.02)

    def to_the_end(self) -> list[BaseException | None]:
        """What each client ended with."""
        self.until(lambda: all(future.done() for future in self._futures))
        return [future.exception() for future in self._futures]

    def pid(self) -> int:
        import ray

        pid: int = ray.get(self.worker.pulse.remote())["pid"]
        return pid

    def signs(self) -> list[WorkerEvent]:
        return [change.sign for change in self.changes]


@pytest.fixture
def make_search(_ray: None, tokens: Tokens, tmp_path: Path) -> Iterator[Callable[..., Search]]:
    import ray

    made: list[Workers] = []

    def make(
        specs: Sequence[TrialSpec], data: Any = tokens, timeout: float = 60.0, **more: Any
    ) -> Search:
        made.append(make_workers(1, data, 2, "cpu", (str(tmp_path), str(tmp_path)), **more))
        return Search(made[-1], specs, timeout)

    yield make
    for workers in made:
        for handle in workers.handles:
            ray.kill(handle)


def test_killed_worker_costs_no_report(
    tokens: Tokens, make_spec: MakeSpec, make_search: Callable[..., Search]
) -> None:
    """SIGKILL in mid-step, with one trial still waiting for a slot."""
    specs = [make_spec(seed=i, steps=160, reports=8, dropout=0.1) for i in range(3)]
    expected = [in_peace(tokens, spec) for spec in specs]
    search = make_search(specs)
    search.until(lambda: len(search.reports[0]) >= 2)
    os.kill(search.pid(), signal.SIGKILL)
    assert search.to_the_end() == [None] * 3
    for number, spec in enumerate(specs):
        assert [r.step for r in search.reports[number]] == list(spec.report_steps)
        assert [r.metrics() for r in search.reports[number]] == expected[number]
    assert search.signs() == [WorkerEvent.LOST, WorkerEvent.BACK]


def test_frozen_worker_is_replaced_and_reports_nothing_twice(
    tokens: Tokens, make_spec: MakeSpec, make_search: Callable[..., Search]
) -> None:
    specs = [make_spec(seed=i, steps=160, reports=8, dropout=0.1) for i in range(2)]
    expected = [in_peace(tokens, spec) for spec in specs]
    search = make_search(specs, timeout=2.0)
    search.until(lambda: len(search.reports[0]) >= 3)
    frozen = search.pid()
    os.kill(frozen, signal.SIGSTOP)
    search.until(lambda: WorkerEvent.FROZEN in search.signs())
    with contextlib.suppress(ProcessLookupError):
        os.kill(frozen, signal.SIGCONT)
    assert search.to_the_end() == [None] * 2
    for number, spec in enumerate(specs):
        assert [r.step for r in search.reports[number]] == list(spec.report_steps)
        assert [r.metrics() for r in search.reports[number]] == expected[number]
    assert search.signs() == [WorkerEvent.FROZEN, WorkerEvent.BACK]
    assert search.pid() != frozen
    assert not Path(f"/proc/{frozen}").exists()


def test_frozen_worker_that_wakes_beside_the_new_one_reports_nothing_twice(
    tokens: Tokens, make_spec: MakeSpec, make_search: Callable[..., Search], tmp_path: Path
) -> None:
    """A machine that was cut off: nobody could kill the old process, and both write states."""
    specs = [make_spec(seed=i, steps=160, reports=8, dropout=0.1) for i in range(2)]
    expected = [in_peace(tokens, spec) for spec in specs]
    old = make_search(specs)
    old.until(lambda: len(old.reports[0]) >= 3)
    frozen = old.pid()
    os.kill(frozen, signal.SIGSTOP)
    new = make_search(specs)
    os.kill(frozen, signal.SIGCONT)
    assert old.to_the_end() == new.to_the_end() == [None] * 2
    for search in (old, new):
        for number in range(2):
            assert [r.metrics() for r in search.reports[number]] == expected[number]
    for number, spec in enumerate(specs):
        state = store.read_newest(tmp_path, CheckpointRef(str(number), 160))
        assert state is not None
        assert (state.step, state.spec_hash) == (160, spec.hash)


@pytest.mark.parametrize("luck", [1, 99])
def test_broken_engine_is_started_again_and_at_last_given_up(
    pairs: tuple[PairDataset, PairDataset],
    make_spec: MakeSpec,
    make_search: Callable[..., Search],
    tmp_path: Path,
    luck: int,
) -> None:
    """The scores of translations cannot be computed: once, or for ever."""
    spec = make_spec(model={"n_encoder_layers": 1, "source_length": 8}, steps=40, reports=4)
    expected = in_peace(pairs, spec)
    count = tmp_path / "count"

    def decode(ids: list[int]) -> str:
        tries = count.read_text().count("x") if count.exists() else 0
        if tries < luck:
            count.write_text((tries + 1) * "x")
            raise LookupError("no such token")
        return str(ids)

    search = make_search([spec], pairs, decode=decode)
    (error,) = search.to_the_end()
    found = [r.metrics() for r in search.reports[0]]
    if luck == 1:
        assert error is None
        assert found == expected
    else:
        assert found == expected[:3]
        assert isinstance(error, RuntimeError)
        assert "died 3 times before its next report" in str(error)
        assert "the engine broke: LookupError: no such token" in str(error)
        assert count.read_text() == "xxx"
