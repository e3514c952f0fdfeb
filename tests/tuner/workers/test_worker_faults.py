"""Workers that are killed, frozen or broken, in a real Ray: each report once, bit for bit."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Queue
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
from tuner.workers.assignment import Assignment
from tuner.workers.batch import ReportBatch
from tuner.workers.client import BatchReader
from tuner.workers.cluster import make_workers
from tuner.workers.orders import Orders
from tuner.workers.ray_session import ray_session
from tuner.workers.watchdog import Watchdog, WorkerChange, WorkerEvent

pytestmark = pytest.mark.slow
Tokens = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    """The second Ray of this process, as in a notebook with two searches."""
    with ray_session(None):
        pass
    with ray_session(None):
        yield


_metrics: dict[str, list[dict[str, float]]] = {}


def undisturbed(data: Any, spec: TrialSpec) -> list[dict[str, float]]:
    """The metrics of all reports; tests share their trials, so that each trains once."""
    if spec.hash not in _metrics:
        engine = Engine(*data, decode=str)
        _metrics[spec.hash] = [r.metrics() for r in engine.run([spec])]
    return _metrics[spec.hash]


class Search:
    """Some trials on one worker, with client and watchdog, and a driver that only collects.

    Attributes:
        reports: reports of each trial.
        failures: reasons of the trials that cannot be trained.
        broken: reasons of the worker for its ends.
    """

    def __init__(
        self, workers: list[Any], specs: Sequence[TrialSpec], timeout: float = 60.0
    ) -> None:
        self.worker = workers[0]
        self.dog = Watchdog(workers, timeout)
        self.changes: list[WorkerChange] = []
        self.reports: dict[int, list[Report]] = {number: [] for number in range(len(specs))}
        self.broken: list[str] = []
        self.deaths = 0
        self.orders = Orders(workers)
        for number, spec in enumerate(specs):
            self.orders.start(Assignment(str(number), 0, spec.model_dump_json()))
        self.orders.send()
        self._reader = BatchReader(dict(enumerate(workers)))
        self._batches: Queue[tuple[int, ReportBatch]] = Queue()
        self._is_over = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._is_over:
            for pair in self._reader.next_batches():
                self._batches.put(pair)

    def _step(self) -> None:
        """Take news and changes, as a driver does."""
        while not self._batches.empty():
            batch = self._batches.get()[1]
            self.broken += [batch.broken] * bool(batch.broken)
            assert not batch.failures
            for segment, report in batch.reports:
                number = int(report.trial_id)
                if self.orders.is_current(segment, number):
                    self.reports[number].append(report)
                    self.orders.taken(number, report.step)
                    if report.status is not Status.TRAINING:
                        self.orders.stop(number, keep=True)
        for change in self.dog.check():
            self.changes.append(change)
            if change.event is WorkerEvent.BACK:
                for number in list(self.orders.running):
                    last = self.reports[number][-1].step if self.reports[number] else 0
                    self.deaths = self.orders.start_again(number, last)
        self.orders.send()

    def until(self, is_so: Callable[[], bool]) -> None:
        """Check the workers all the time, as the driver does."""
        deadline = time.monotonic() + 300  # only a hang takes so long
        while not is_so():
            assert time.monotonic() < deadline, (self.changes, self.reports)
            self._step()
            time.sleep(0.02)

    def to_the_end(self) -> None:
        """Wait until all trials have ended."""
        self.until(lambda: not self.orders.running)

    def close(self) -> None:
        """End the thread: Ray must not end while another thread calls it."""
        self._is_over = True
        self.worker.end_waiting.remote()
        self._thread.join()

    def pid(self) -> int:
        import ray

        pid: int = ray.get(self.worker.ping.remote())["pid"]
        return pid

    def events(self) -> list[WorkerEvent]:
        """What happened, without a restart's being late, which is the machine's other load."""
        events = [change.event for change in self.changes]
        return [event for event in events if event is not WorkerEvent.MISSING]


@pytest.fixture
def make_search(_ray: None, tokens: Tokens, tmp_path: Path) -> Iterator[Callable[..., Search]]:
    import ray

    searches: list[Search] = []

    def make(
        specs: Sequence[TrialSpec], data: Any = tokens, timeout: float = 60.0, **more: Any
    ) -> Search:
        workers = make_workers(1, data, 2, "cpu", (str(tmp_path), str(tmp_path)), **more)
        searches.append(Search(workers, specs, timeout))
        return searches[-1]

    yield make
    for search in searches:
        search.close()
        ray.kill(search.worker)


def test_killed_worker_costs_no_report(
    tokens: Tokens, make_spec: MakeSpec, make_search: Callable[..., Search]
) -> None:
    """SIGKILL in mid-step, with one trial still waiting for a slot."""
    specs = [make_spec(seed=i, steps=160, reports=8, dropout=0.1) for i in range(3)]
    expected = [undisturbed(tokens, spec) for spec in specs]
    search = make_search(specs)
    search.until(lambda: len(search.reports[0]) >= 2)
    os.kill(search.pid(), signal.SIGKILL)
    search.to_the_end()
    for number, spec in enumerate(specs):
        assert [r.step for r in search.reports[number]] == list(spec.report_steps)
        assert [r.metrics() for r in search.reports[number]] == expected[number]
    assert search.events() == [WorkerEvent.UP, WorkerEvent.LOST, WorkerEvent.BACK]


def test_frozen_worker_is_replaced_and_reports_nothing_twice(
    tokens: Tokens, make_spec: MakeSpec, make_search: Callable[..., Search]
) -> None:
    specs = [make_spec(seed=i, steps=160, reports=8, dropout=0.1) for i in range(2)]
    expected = [undisturbed(tokens, spec) for spec in specs]
    search = make_search(specs, timeout=6.0)
    search.until(lambda: len(search.reports[0]) >= 3)
    frozen = search.pid()
    os.kill(frozen, signal.SIGSTOP)
    search.until(lambda: WorkerEvent.FROZEN in search.events())
    with contextlib.suppress(ProcessLookupError):
        os.kill(frozen, signal.SIGCONT)
    search.to_the_end()
    for number, spec in enumerate(specs):
        assert [r.step for r in search.reports[number]] == list(spec.report_steps)
        assert [r.metrics() for r in search.reports[number]] == expected[number]
    assert search.events() == [WorkerEvent.UP, WorkerEvent.FROZEN, WorkerEvent.BACK]
    assert search.pid() != frozen
    assert not Path(f"/proc/{frozen}").exists()


def test_frozen_worker_that_resumes_beside_the_new_one_reports_nothing_twice(
    tokens: Tokens, make_spec: MakeSpec, make_search: Callable[..., Search], tmp_path: Path
) -> None:
    """A machine without network: the old process lives on, and both write checkpoints."""
    specs = [make_spec(seed=i, steps=160, reports=8, dropout=0.1) for i in range(2)]
    expected = [undisturbed(tokens, spec) for spec in specs]
    old = make_search(specs)
    old.until(lambda: len(old.reports[0]) >= 3)
    frozen = old.pid()
    os.kill(frozen, signal.SIGSTOP)
    new = make_search(specs)
    os.kill(frozen, signal.SIGCONT)
    old.to_the_end()
    new.to_the_end()
    for search in (old, new):
        for number in range(2):
            assert [r.metrics() for r in search.reports[number]] == expected[number]
    for number, spec in enumerate(specs):
        state = store.read_newest(tmp_path, CheckpointRef(str(number), 160))
        assert state is not None
        assert (state.step, state.spec_hash) == (160, spec.hash)


def test_broken_engine_is_restarted(
    pairs: tuple[PairDataset, PairDataset],
    make_spec: MakeSpec,
    make_search: Callable[..., Search],
    tmp_path: Path,
) -> None:
    """Decoding translations fails some times, when the reports before have arrived."""
    spec = make_spec(model={"n_encoder_layers": 1, "source_length": 8}, steps=40, reports=4)
    expected = undisturbed(pairs, spec)
    count, arrived = tmp_path / "count", tmp_path / "arrived"

    def decode(ids: list[int]) -> str:
        while not arrived.exists():
            time.sleep(0.01)
        tries = count.read_text().count("x") if count.exists() else 0
        if tries < 2:
            count.write_text((tries + 1) * "x")
            raise LookupError("no such token")
        return str(ids)

    search = make_search([spec], pairs, decode=decode)
    search.until(lambda: len(search.reports[0]) == 3)
    arrived.touch()
    search.to_the_end()
    assert [r.metrics() for r in search.reports[0]] == expected
    assert set(search.broken) == {"the engine broke: LookupError: no such token"}
    assert search.deaths == 2
