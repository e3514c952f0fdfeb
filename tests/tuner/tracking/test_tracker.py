from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.data
import pytest
from mlflow import MlflowClient
from tuner.tracking.tracker import _MOST_REPORTS, Tracker

from model.engine.report import METRICS, SOME_METRICS, Status
from model.spec.data import DataConfig
from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import ENVIRONMENT, Open, report, rows, states, stored_steps
from tuner.errors import RecordError, StoreError
from tuner.space.data_facts import DataFacts
from tuner.tracking import tracker as tracking
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.metrics import SystemMetrics
from tuner.tracking.record import Record
from tuner.tracking.runs import RunStart, TimedReport, parameters_of, trial_tags
from tuner.tracking.store import open_client


def test_tracker_keeps_every_bit(open_tracker: Open, store: str, make_spec: MakeSpec) -> None:
    """A replay compares stored metrics, including NaN and the last digit."""
    tracker, spec = open_tracker(), make_spec()
    reports = [report(4, math.pi), report(8, 1e-17), report(9, math.nan, Status.DIVERGED)]
    tracker.start_trial(0, spec, ENVIRONMENT)
    for each in reports:
        tracker.log_report(0, each)
    tracker.end_trial(0, "diverged")
    tracker.flush()
    tracker.finish("finished", {"best_val_loss": 1.0}, tracker.run_of(0))

    record = Record(store)
    trial = record.best(record.search("lm-1"))
    assert record.spec(trial) == spec
    assert trial.status == "diverged"
    assert trial.environment == ENVIRONMENT
    back = record.reports(trial)
    assert [str(m) for m in back.values()] == [str(r.metrics()) for r in reports]
    assert record.client.get_run(trial.run_id).info.status == "FAILED"


def test_record_returns_complete_reports(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """Including infinities and metrics that only some trials have."""
    spec = make_spec(steps=12, reports=3)
    finished = [
        replace(report(4, 1e-17), sparsity=0.0, token_accuracy=1 / 3),
        report(8, math.pi),
        replace(report(12, 2.0, Status.FINISHED), sparsity=0.9, token_accuracy=1.0, bleu=0.1),
    ]
    diverged = [
        replace(report(4, 800.0), trial_id="1"),
        replace(report(5, math.nan, Status.DIVERGED), trial_id="1", train_loss=math.inf),
    ]
    tracker = open_tracker()
    for number, reports in enumerate((finished, diverged)):
        tracker.start_trial(number, spec, ENVIRONMENT)
        for each in reports:
            tracker.log_report(number, each)
        tracker.end_trial(number, str(reports[-1].status))
    tracker.finish("finished", {}, None)
    record = Record(store)
    back = [record.report_list(trial, spec) for trial in record.trials(record.search())]
    assert repr(back) == repr([finished, diverged])
    assert back[0] == finished


def test_tracker_retries_refused_writes(
    open_tracker: Open, store: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call fails at first; nothing is lost and nothing is stored twice."""
    tracker = open_tracker()
    client, failures = (
        tracker.runs.record.client,
        dict.fromkeys(("create_run", "log_batch", "log_text"), 1),
    )

    def flaky(name: str) -> Callable[..., Any]:
        real = getattr(client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if failures[name]:
                failures[name] -= 1
                raise sqlite3.OperationalError("database is locked")
            return real(*args, **kwargs)

        return call

    for name in failures:
        monkeypatch.setattr(client, name, flaky(name))
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.log_report(0, report(4, 2.0))
    tracker.end_trial(0, "finished")
    tracker.flush()
    record = Record(store)
    (trial,) = record.trials(record.search())
    assert list(record.reports(trial)) == [4]
    assert not any(failures.values())


def test_tracker_reports_a_store_that_stays_unavailable(
    open_tracker: Open, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_tracker()
    monkeypatch.setattr(tracking, "_PATIENCE_SECONDS", 1.5)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(tracker.runs.record.client, "create_run", refuse)
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    with pytest.raises(StoreError, match=r"lm-1: disk I/O error; 'tuner sync lm-1' sends it later"):
        tracker.flush()
    assert tracker.problem is not None
    assert "disk I/O error" in tracker.problem


def test_tracker_of_a_driver_that_was_replaced_sends_nothing(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """What it had noted before it fell asleep is left to the driver that came after it."""
    tracker, has_next = open_tracker(), False
    tracker._may_write = lambda: not has_next
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.flush()
    has_next = True
    tracker.log_report(0, report(4, 2.0))
    tracker.end_trial(0, "interrupted")
    while not tracker._is_closed:
        time.sleep(0.01)
    record = Record(store)
    (trial,) = record.trials(record.search())
    assert (trial.status, trial.metrics) == ("running", {})


def test_tracker_refuses_an_unusable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    with pytest.raises(StoreError, match="cannot be used"):
        Record(f"sqlite:///{tmp_path}/file")


def test_searches_of_one_space_may_begin_at_the_same_moment(
    open_tracker: Open, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find no experiment of that name; only one of them can create it."""
    open_tracker("lm-1").close()
    get, answers = MlflowClient.get_experiment_by_name, [None]

    def late(self: MlflowClient, name: str) -> Any:
        return answers.pop() if answers else get(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    open_tracker("lm-2").close()
    assert answers == []
    assert len({search.experiment_id for search in Record(store).searches()}) == 1
    assert len(Record(store).searches()) == 2


def test_record_finds_searches_and_trials(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    record = Record(store)
    with pytest.raises(RecordError, match="run 'tuner search' first"):
        record.search()
    for name in ("lm-1", "lm-2"):
        tracker = open_tracker(name)
        tracker.start_trial(0, make_spec(), ENVIRONMENT)
        tracker.end_trial(0, "interrupted")
        tracker.flush()
        tracker.finish("interrupted", {}, None)
    assert [s.name for s in record.searches()] == ["lm-2", "lm-1"]
    assert record.search("lm-1").status == "interrupted"
    with pytest.raises(RecordError, match="no search is called lm-9; the newest are: lm-2, lm-1"):
        record.search("lm-9")
    with pytest.raises(RecordError, match="has no best trial"):
        record.best(record.search("lm-2"))
    (trial,) = record.trials(record.search("lm-1"))
    assert record.trial(trial.run_id[:10]) == trial
    for name in ("lm-1/0", "lm-1/000"):
        assert record.trial(name) == trial
    for wrong in ("lm-1/1", "lm-1/-1", "lm-1/0'", "lm-1/٣"):
        with pytest.raises(RecordError, match="lm-1 has no trial"):
            record.trial(wrong)
    for wrong in ("f" * 32, trial.run_id[:3], "' OR 1=1"):
        with pytest.raises(RecordError, match="run id"):
            record.trial(wrong)
    with pytest.raises(RecordError, match="begins with a dot"):
        record.trial("../x")
    assert record.trial(trial.run_id) == trial
    parent = record.search("lm-1").run_id
    with pytest.raises(RecordError, match="no trial has the run id"):
        record.trial(parent)  # a search is none
    with pytest.raises(RecordError, match="no trial has the run id"):
        record.trial(parent[:12])


# what belongs to the search --------------------------------------------------------------------


def inputs_of(record: Record, run_id: str) -> list[tuple[str, str, str, dict[str, int]]]:
    """Name, digest, context and profile of each data set of a run."""
    found = record.client.get_run(run_id).inputs.dataset_inputs
    return [
        (i.dataset.name, i.dataset.digest, i.tags[0].value, json.loads(i.dataset.profile))
        for i in found
    ]


def test_tracker_records_the_corpus_once(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    facts = DataFacts(300, 5000, 500, "d" * 64, "t" * 64, train_tokens=5000, validation_tokens=500)
    inputs = dataset_inputs(DataConfig(files=("/a/texts", "/b/more.txt")), facts)
    for resume in (False, True):
        tracker = open_tracker(resume=resume, inputs=inputs)
        tracker.start_trial(0, make_spec(), ENVIRONMENT)
        tracker.end_trial(0, "finished")
        tracker.finish("finished", {}, None)
    record = Record(store)
    search = record.search()
    (trial,) = record.trials(search)
    for run_id in (search.run_id, trial.run_id):
        training, validation = inputs_of(record, run_id)
        assert training[::2] == ("texts, more.txt", "training")
        assert validation[::2] == ("texts, more.txt", "validation")
        assert training[1].startswith("d" * 16)
        assert training[1] != validation[1]
        assert training[3] == {"num_tokens": 5000, "vocab_size": 300}
        assert validation[3] == {"num_tokens": 500, "vocab_size": 300}
    assert len(rows(store, "select * from datasets")) == 2
    assert len(rows(store, "select * from inputs")) == 4
    condition = "datasets.name = 'texts, more.txt' and datasets.context = 'validation'"
    assert len(record.client.search_runs([search.experiment_id], condition)) == 2


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        ({"source": "python-stdlib"}, "python-stdlib", "code"),
        ({"files": ("/a/texts",)}, "texts", "local"),
        ({"hub": "owner/name", "revision": "abc"}, "owner/name", "hugging_face"),
    ],
)
def test_mlflow_reads_the_source_of_a_dataset(data: dict[str, Any], name: str, kind: str) -> None:
    facts = DataFacts(300, 700, 70, "d" * 64, "t" * 64, has_pairs=True, train_tokens=9000)
    training, _ = dataset_inputs(DataConfig(**data), facts)
    assert training.dataset.name == name
    assert json.loads(training.dataset.profile) == {
        "num_pairs": 700, "num_tokens": 9000, "vocab_size": 300
    }  # fmt: skip
    source = mlflow.data.get_source(training)
    assert training.dataset.source_type == kind
    if kind == "hugging_face":
        assert (source.path, source.split, source.revision) == ("owner/name", "train", "abc")


def test_dataset_digests_differ_between_splits_of_the_same_documents() -> None:
    """MLflow keeps the first profile of a digest."""
    data, digests = DataConfig(), set()
    for size, tokenizer in ((700, "t"), (701, "t"), (700, "u")):
        facts = DataFacts(300, size, 700, "d" * 64, tokenizer)
        digests |= {each.dataset.digest for each in dataset_inputs(data, facts)}
    assert len(digests) == 5
    assert max(map(len, digests)) <= 36  # which MLflow takes


def test_tracker_records_the_load_of_workers(open_tracker: Open, store: str) -> None:
    tracker = open_tracker()
    began = tracker.runs.started_ms
    for seconds in range(0, 5 * 300, 5):
        names = (f"system/worker_{number}/memory_megabytes" for number in range(4))
        values = dict.fromkeys(names, 300.0 + seconds)
        tags = {"trials_done": str(seconds), "time_left": "1:00"}
        tracker.log_system_metrics(SystemMetrics(values, began + 1000 * seconds, tags))
    tracker.flush()
    record = Record(store)
    assert record.search().tags["trials_done"] == str(5 * 299)
    tracker.finish("finished", {"best": 1.0}, None, tags={"time_left": "0:00"})
    search = record.search()
    assert (search.tags["trials_done"], search.tags["time_left"]) == (str(5 * 299), "0:00")
    assert search.metrics == {"best": 1.0}
    for number in range(4):
        name = f"system/worker_{number}/memory_megabytes"
        history = record.client.get_metric_history(search.run_id, name)
        assert [(m.step, m.value) for m in history] == [
            (seconds, 300.0 + seconds) for seconds in range(0, 5 * 300, 5)
        ]


def test_runs_are_found_by_sampler_scheduler_and_status(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    tracker = open_tracker()
    endings = ("finished", "stopped at report 2", "diverged", "failed: its worker died", "running")
    for number, ending in enumerate(endings):
        tracker.start_trial(number, make_spec(seed=number), ENVIRONMENT)
        if ending != "running":
            tracker.end_trial(number, ending)
    tracker.flush()
    client = Record(store).client

    def found(condition: str) -> int:
        return len(client.search_runs([tracker.experiment_id], condition))

    assert found("tags.sampler = 'tpe' and tags.scheduler = 'asha'") == len(endings) + 1
    assert found("tags.status LIKE 'stopped%'") == 1
    assert found("tags.status LIKE 'failed%'") == 1
    for ending in endings:
        assert found(f"tags.status = '{ending}' and tags.`tuner.kind` = 'trial'") == 1
    tracker.finish("finished", {}, None)
    assert found("tags.status = 'finished' and tags.`tuner.kind` = 'search'") == 1


# noted twice, stored once ---------------------------------------------------------------------


def note_all(tracker: Tracker, make_spec: MakeSpec) -> None:
    """Note a search of three trials with the times of its journal."""
    for number in range(3):
        links = trial_tags(0, None) if number else {}
        tracker.start_trial(number, make_spec(seed=number), ENVIRONMENT, 1000 + number, links)
        for step in (4, 8, 9):
            is_last = step == 9
            loss = math.nan if is_last else 1 / step
            status = Status.DIVERGED if is_last else Status.TRAINING
            tracker.log_report(number, report(step, loss, status), 2000 + step)
        tracker.end_trial(number, "diverged", 3000 + number)


def test_tracker_stores_data_noted_twice_once(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """By one tracker, and by one that resumes."""
    first = open_tracker()
    note_all(first, make_spec)
    note_all(first, make_spec)
    first.flush()
    first.finish("finished", {"best": 1.0}, first.run_of(1), 5000)
    tables = ("metrics", "latest_metrics", "params", "tags", "runs")
    before = [sorted(rows(store, f"select * from {table}"), key=repr) for table in tables]
    assert len(before[0]) == 3 * 3 * 6 + 1

    second = open_tracker(resume=True)
    assert second.run_id == first.run_id
    note_all(second, make_spec)
    second.flush()
    second.finish("finished", {"best": 1.0}, second.run_of(1), 5000)
    after = [sorted(rows(store, f"select * from {table}"), key=repr) for table in tables]
    assert after == before
    assert (second.num_created, second.num_metrics) == (0, 0)
    trials = Record(store).trials(Record(store).search())
    assert [(t.parent, t.confirms) for t in trials] == [(None, None), (0, None), (0, None)]


def test_mlflow_stores_equal_metrics_once(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """So a retry is harmless if the first attempt was served although it seemed to fail."""
    tracker = open_tracker()
    reports = [
        TimedReport(report(4, math.nan), 2000),
        TimedReport(replace(report(8, 1.0), grad_norm=math.inf), 2001),
    ]
    run_id = tracker.runs.create(0, RunStart(make_spec(), ENVIRONMENT, 1000))
    for batch in (reports[:1], reports, reports):
        tracker.runs.log(run_id, batch)
    assert stored_steps(store, 0) == [4, 8]
    assert len(rows(store, "select * from metrics")) == 12
    assert len(Record(store).client.get_metric_history(run_id, "val_loss")) == 2


def test_tracker_resumes_after_its_driver_was_killed(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """A run that was left running is found, and its unsent reports follow."""
    killed = open_tracker()
    killed.start_trial(0, make_spec(), ENVIRONMENT, 1000)
    killed.log_report(0, report(4, 2.0), 2000)
    killed.flush()
    killed.close()
    record = Record(store)
    assert states(record) == [(0, "running", "RUNNING")]

    resumed = open_tracker(resume=True)
    reports = [TimedReport(report(4, 2.0), 2000), TimedReport(report(8, 1.0), 2001)]
    resumed.add_trial(0, RunStart(make_spec(), ENVIRONMENT, 1000), reports, "running", 1000)
    resumed.start_trial(1, make_spec(seed=1), ENVIRONMENT, 3000)
    resumed.flush()
    assert stored_steps(store, 0) == [4, 8]
    assert states(record) == [(0, "running", "RUNNING"), (1, "running", "RUNNING")]
    assert (resumed.num_created, resumed.num_metrics) == (1, 6)
    resumed.end_trial(0, "finished")
    resumed.finish("finished", {}, None)
    assert [search.status for search in record.searches()] == ["finished"]


def test_tracker_replaces_an_outcome(open_tracker: Open, store: str, make_spec: MakeSpec) -> None:
    """An interrupted search, or a paused trial, continues."""
    record, spec = Record(store), make_spec()
    first = open_tracker()
    first.start_trial(0, spec, ENVIRONMENT)
    first.log_report(0, report(4, 2.0))
    first.end_trial(0, "interrupted")
    first.finish("interrupted", {}, None)
    assert states(record) == [(0, "interrupted", "KILLED")]
    parent = first.run_id
    assert record.client.get_run(parent).info.status == "KILLED"

    second = open_tracker(resume=True)
    assert record.search().status == "interrupted"  # until a trial continues
    second.start_trial(0, spec, ENVIRONMENT)
    second.flush()
    assert states(record) == [(0, "running", "RUNNING")]
    assert record.search().status == "running"
    assert record.client.get_run(parent).info.status == "RUNNING"
    second.end_trial(0, "stopped at report 1")
    second.flush()
    assert states(record) == [(0, "stopped at report 1", "FINISHED")]
    second.start_trial(0, spec, ENVIRONMENT)
    second.log_report(0, report(8, 1.0))
    second.end_trial(0, "failed: its worker died")
    second.finish("finished", {"best": 1.0}, second.run_of(0))
    assert states(record) == [(0, "failed: its worker died", "FAILED")]
    assert stored_steps(store, 0) == [4, 8]
    assert record.search().best_run == second.run_of(0)


def test_tracker_resumes_in_an_empty_store(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    tracker = open_tracker(resume=True)
    note_all(tracker, make_spec)
    tracker.finish("finished", {}, None)
    assert [status for _, status, _ in states(Record(store))] == ["diverged"] * 3


def test_tracker_sends_many_reports_in_order(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """More reports than one call takes, each with all metrics there are."""
    tracker = open_tracker()
    rare = {"sparsity": 0.5, "token_accuracy": 0.25, "bleu": 9.0, "train_objective": 2.0}
    reports = [
        TimedReport(replace(report(step, 1 / step), **rare), 2000 + step) for step in range(1, 251)
    ]
    entities = _MOST_REPORTS * len(METRICS + SOME_METRICS) + len(parameters_of(make_spec())) + 1
    assert entities <= 1000, "MLflow would send the status before some reports"
    tracker.add_trial(0, RunStart(make_spec(), ENVIRONMENT, 1000), reports, "finished", 3000)
    tracker.flush()
    assert stored_steps(store, 0) == list(range(1, 251))
    assert tracker.num_metrics == 250 * len(METRICS + SOME_METRICS)
    assert states(Record(store)) == [(0, "finished", "FINISHED")]


@pytest.mark.slow
def test_database_is_created_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill between two of MLflow's steps the next process restarts; a database is kept."""
    path, real = tmp_path / "home" / "mlflow.db", MlflowClient.search_experiments

    def killed(client: MlflowClient, *arguments: Any, **options: Any) -> Any:
        real(client, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "search_experiments", killed)
    with pytest.raises(KeyboardInterrupt):
        open_client(f"sqlite:///{path}")
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    made = open_client(f"sqlite:///{path}").create_experiment("kept")
    assert list(path.parent.iterdir()) == [path]
    assert open_client(f"sqlite:///{path}").get_experiment(made).name == "kept"


@pytest.mark.slow
def test_tracker_writes_nothing_outside_of_the_home(
    open_tracker: Open, store: str, tmp_path: Path
) -> None:
    """A handed-over store can have an experiment that leads elsewhere, without a run."""
    elsewhere = (tmp_path.parent / "elsewhere").as_uri()
    open_client(store).create_experiment("lm", artifact_location=elsewhere)
    with pytest.raises(StoreError, match="outside of this home, where nothing is written"):
        open_tracker()
    assert Record(store).searches() == []
