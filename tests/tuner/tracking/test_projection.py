from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.data
import pytest
from mlflow import MlflowClient

from model.engine.report import METRICS, SOME_METRICS, Status
from model.spec.data import DataConfig
from tests.conftest import MakeSpec
from tests.tuner.manual_clock import SharedClock
from tests.tuner.tracking.recorded import (
    ENVIRONMENT,
    SPACE,
    Begin,
    RecordedSearch,
    contents,
    report,
    rows,
    states,
    stored_reports,
    stored_spec,
    stored_steps,
)
from tuner.errors import RecordError, StoreError
from tuner.home.home import Home
from tuner.journal.events import SearchBegun
from tuner.journal.follower import Follower
from tuner.journal.journal import Feed
from tuner.space.data_facts import DataFacts
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.metrics import PROGRESS, SystemMetrics, as_stored
from tuner.tracking.projection import _MOST_REPORTS, MlflowProjection
from tuner.tracking.record import Record
from tuner.tracking.records import parameters_of
from tuner.tracking.runs import RunStart, TimedReport
from tuner.tracking.store import open_client
from tuner.tracking.tags import Tag


def test_projection_keeps_every_bit(begin_search: Begin, store: str, make_spec: MakeSpec) -> None:
    """The last digit, NaN, infinities, and metrics that only some trials have."""
    search, spec = begin_search(), make_spec()
    some = {"sparsity": 0.0, "token_accuracy": 1 / 3, "bleu": 0.1}
    reports = [
        replace(report(4, math.pi), **some), report(8, 1e-17),
        replace(report(9, math.nan, Status.DIVERGED), train_loss=math.inf),
    ]  # fmt: skip
    search.trial(0, spec, *reports, outcome="diverged")
    search.finish("finished", 0, best_val_loss=1.0)

    record = Record(store)
    trial = record.best(record.search("lm-1"))
    assert stored_spec(record, trial) == spec
    assert trial.status == "diverged"
    assert trial.environment == ENVIRONMENT
    back = stored_reports(record, trial)
    assert [str(metrics) for metrics in back.values()] == [
        str({name: as_stored(value) for name, value in r.metrics().items()}) for r in reports
    ]
    assert record.client.get_run(trial.run_id).info.status == "FAILED"


@pytest.mark.slow
def test_projection_retries_refused_writes(
    begin_search: Begin, store: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call fails at first; nothing is lost and nothing is stored twice."""
    search = begin_search(clock=SharedClock())
    client = search.mlflow.runs.record.client
    failures = dict.fromkeys(("create_run", "log_batch", "log_text"), 1)

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
    search.trial(0, make_spec(), report(4, 2.0), outcome="finished")
    search.flush()
    record = Record(store)
    (trial,) = record.trials(record.search())
    assert list(stored_reports(record, trial)) == [4]
    assert not any(failures.values())


def test_projection_reports_a_store_that_stays_unavailable(
    begin_search: Begin, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin_search(clock=SharedClock())

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(search.mlflow.runs.record.client, "create_run", refuse)
    search.begin(0, make_spec())
    problem = search.follower.flush(30)
    assert problem == search.follower.problem is not None
    assert problem.endswith(
        "mlflow.db lacks part of lm-1 (disk I/O error); 'tuner sync lm-1' sends it later"
    )


def test_projection_of_a_driver_that_was_replaced_sends_nothing(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    """What it had noted before it fell asleep is left to the driver that came after it."""
    search = begin_search(clock=SharedClock())
    search.begin(0, make_spec())
    search.flush()
    search.report(0, report(4, 2.0), outcome="stopped at report 1")  # collected for a second
    search.journal.lose("process 7 of another machine")
    assert search.follower.flush(30) is None
    assert search.follower.problem is None
    with pytest.raises(StoreError, match="another driver records the search"):
        search.mlflow.runs.set_status(search.run_of(0), "interrupted", 1000)
    record = Record(store)
    (trial,) = record.trials(record.search())
    assert (trial.status, trial.metrics) == ("running", {})


def test_projection_refuses_an_unusable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    with pytest.raises(StoreError, match="cannot be used"):
        Record(f"sqlite:///{tmp_path}/file")


def test_searches_of_one_space_may_begin_at_the_same_moment(
    begin_search: Begin, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find no experiment of that name; only one of them can create it."""
    begin_search("lm-1")
    get, answers = MlflowClient.get_experiment_by_name, [None]

    def late(self: MlflowClient, name: str) -> Any:
        return answers.pop() if answers else get(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    begin_search("lm-2")
    assert answers == []
    assert len({search.experiment_id for search in Record(store).searches()}) == 1
    assert len(Record(store).searches()) == 2


def test_record_finds_searches_and_trials(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    record = Record(store)
    with pytest.raises(RecordError, match="run 'tuner search' first"):
        record.search()
    for name in ("lm-1", "lm-2"):
        search = begin_search(name)
        search.begin(0, make_spec())
        search.finish("interrupted")
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
    for wrong in ("lm-1/-1", "lm-1/0'", "' OR 1=1"):
        with pytest.raises(RecordError, match="so it is no name of a trial"):
            record.trial(wrong)
    for wrong in ("lm-1/1", "lm-1/٣"):
        with pytest.raises(RecordError, match="lm-1 has no trial"):
            record.trial(wrong)
    for wrong in ("f" * 32, trial.run_id[:3]):
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


def test_projection_records_the_corpus_once(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    facts = DataFacts(300, 5000, 500, "d" * 64, "t" * 64, train_tokens=5000, validation_tokens=500)
    space = SPACE.model_copy(update={"data": DataConfig(files=("/a/texts", "/b/more.txt"))})
    search = begin_search(space=space, facts=facts)
    search.trial(0, make_spec(), report(4, 2.0), outcome="finished")
    search.finish()
    begin_search().finish()
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


def test_projection_records_the_load_of_workers(begin_search: Begin, store: str) -> None:
    search = begin_search()
    began = search.mlflow.runs.started_ms
    for seconds in range(0, 5 * 300, 5):
        names = (f"system/worker_{number}/memory_megabytes" for number in range(4))
        values = dict.fromkeys(names, 300.0 + seconds)
        search.mlflow.sample(SystemMetrics(values, began + 1000 * seconds))
    search.flush()
    record = Record(store)
    assert record.search().tags[Tag.TRIALS_DONE] == "0 of 24"
    search.finish(best_val_loss=1.0)
    recorded = record.search()
    assert recorded.tags[Tag.TRIALS_DONE] == "0 of 0"
    assert recorded.metrics["best_val_loss"] == 1.0
    assert {n for n in recorded.metrics if not n.startswith(PROGRESS)} == {"best_val_loss"}
    for number in range(4):
        name = f"system/worker_{number}/memory_megabytes"
        history = record.client.get_metric_history(recorded.run_id, name)
        assert [(m.step, m.value) for m in history] == [
            (seconds, 300.0 + seconds) for seconds in range(0, 5 * 300, 5)
        ]


def test_sample_says_how_far_the_search_is(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    """With each sample of the load, as metrics and as tags of the run; no more after the end."""
    search, record = begin_search(), Record(store)

    def sample(seconds: int) -> None:
        search.flush()
        time_ms = search.mlflow.runs.started_ms + 1000 * seconds
        search.mlflow.sample(SystemMetrics({"system/worker_0/memory_megabytes": 300.0}, time_ms))
        search.flush()

    def history(name: str) -> list[tuple[int, float]]:
        metrics = record.client.get_metric_history(record.search().run_id, f"progress/{name}")
        return [(metric.step, metric.value) for metric in metrics]

    def tags() -> list[str | None]:
        names = (Tag.TRIALS_DONE, Tag.TIME_LEFT, Tag.BEST_SO_FAR)
        return [record.search().tags.get(name) for name in names]

    sample(0)
    assert tags() == ["0 of 24", "unknown", None]
    search.trial(0, make_spec(), report(4, 2.5), report(12, 2.0), outcome="finished")
    search.trial(1, make_spec(seed=1), report(4, math.nan), outcome="diverged")
    sample(5)
    assert tags()[::2] == ["2 of 24", "val_loss 2.0000 in trial 0"]
    assert tags()[1] != "unknown"
    assert history("trials_ended") == [(0, 0.0), (5, 2.0)]
    assert history("trials") == [(0, 24.0), (5, 24.0)]
    assert history("best_val_loss") == [(5, 2.0)]
    rates = history("tokens_per_second")
    assert [step for step, _ in rates] == [0, 5]
    assert rates[0][1] == 0 < rates[1][1]
    assert [step for step, _ in history("seconds_left")] == [5]

    search.end(best=0, best_val_loss=2.0)
    sample(10)
    assert tags() == ["2 of 2", "0:00", "val_loss 2.0000 in trial 0"]
    assert history("trials_ended") == [(0, 0.0), (5, 2.0)]


def test_runs_are_found_by_sampler_scheduler_and_status(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    search = begin_search()
    endings = ("finished", "stopped at report 2", "diverged", "failed: its worker died", "running")
    for number, ending in enumerate(endings):
        search.begin(number, make_spec(seed=number))
        if ending.startswith("failed"):
            search.fail(number, ending.removeprefix("failed: "))
        elif ending != "running":
            search.report(number, report(4, 2.0), outcome=ending)
    search.flush()
    client = Record(store).client

    def found(condition: str) -> int:
        return len(client.search_runs([search.mlflow.runs.experiment_id], condition))

    assert found("tags.sampler = 'tpe' and tags.scheduler = 'asha'") == len(endings) + 1
    assert found("tags.status LIKE 'stopped%'") == 1
    assert found("tags.status LIKE 'failed%'") == 1
    for ending in endings:
        assert found(f"tags.status = '{ending}' and tags.`tuner.kind` = 'trial'") == 1
    search.finish()
    assert found("tags.status = 'finished' and tags.`tuner.kind` = 'search'") == 1


# noted twice, stored once ---------------------------------------------------------------------


def three_trials(search: RecordedSearch, make_spec: MakeSpec) -> None:
    for number in range(3):
        search.begin(number, make_spec(seed=number), parent=0 if number else None)
        reports = [report(4, 1 / 4), report(8, 1 / 8), report(9, math.nan, Status.DIVERGED)]
        search.report(number, *reports, outcome="diverged")


def test_projection_stores_a_journal_that_it_reads_twice_once(
    begin_search: Begin, store: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Another process may have sent everything: the store is compared, whatever a cursor says."""
    first = begin_search()
    three_trials(first, make_spec)
    first.finish(best=1, best_val_loss=1.0)
    before = contents(store)
    assert len(before["metrics"]) == 3 * 3 * 6 + 1

    begun = first.journal.events[0]
    assert isinstance(begun, SearchBegun)
    again = MlflowProjection.of(Home(tmp_path, store), "lm-1", begun, lambda _: None, resume=True)
    follower = Follower(again, Feed(first.journal.entries)).start()
    assert follower.close(30) is None
    assert again.runs.run_id == first.mlflow.runs.run_id
    assert again.run_ids == first.mlflow.run_ids
    assert contents(store) == before
    assert (again.num_created, again.num_metrics, again.num_endings) == (0, 0, 0)
    assert (again.parent.num_ends, again.parent.sent) == (0, [])
    trials = Record(store).trials(Record(store).search())
    assert [(t.parent, t.confirms) for t in trials] == [(None, None), (0, None), (0, None)]


def test_mlflow_stores_equal_metrics_once(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    """So a retry is harmless if the first attempt was served although it seemed to fail."""
    runs = begin_search().mlflow.runs
    reports = [
        TimedReport(report(4, math.nan), 2000),
        TimedReport(replace(report(8, 1.0), grad_norm=math.inf), 2001),
    ]
    run_id = runs.create(0, RunStart(make_spec(), ENVIRONMENT, 1000))
    for batch in (reports[:1], reports, reports):
        runs.log(run_id, batch)
    assert stored_steps(store, 0) == [4, 8]
    assert len(rows(store, "select * from metrics")) == 12
    assert len(Record(store).client.get_metric_history(run_id, "val_loss")) == 2


def test_projection_resumes_after_its_driver_was_killed(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    """A run that was left running is found, and its unsent reports follow."""
    killed = begin_search(clock=SharedClock())
    killed.begin(0, make_spec())
    killed.report(0, report(4, 2.0))
    killed.flush()
    killed.report(0, report(8, 1.0))  # collected for a second
    killed.close()
    record = Record(store)
    assert states(record) == [(0, "running", "RUNNING")]
    assert stored_steps(store, 0) == [4]

    resumed = begin_search()
    resumed.begin(1, make_spec(seed=1))
    resumed.flush()
    assert stored_steps(store, 0) == [4, 8]
    assert states(record) == [(0, "running", "RUNNING"), (1, "running", "RUNNING")]
    assert (resumed.mlflow.num_created, resumed.mlflow.num_metrics) == (1, 6)
    resumed.report(0, report(12, 1.0), outcome="finished")
    resumed.finish()
    assert states(record)[0] == (0, "finished", "FINISHED")
    assert [search.status for search in record.searches()] == ["finished"]


def test_projection_replaces_an_outcome(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    """An interrupted search, or a trial that was stopped before an edit, continues."""
    record = Record(store)
    first = begin_search()
    first.begin(0, make_spec())
    first.report(0, report(4, 2.0))
    first.finish("interrupted")
    assert states(record) == [(0, "interrupted", "KILLED")]
    parent = first.mlflow.runs.run_id
    assert record.search().status == "interrupted"
    assert record.client.get_run(parent).info.status == "KILLED"

    second = begin_search()
    second.flush()
    assert states(record) == [(0, "running", "RUNNING")]
    assert record.search().status == "running"
    assert record.client.get_run(parent).info.status == "RUNNING"
    second.report(0, report(8, 1.5), outcome="stopped at report 2")
    second.flush()
    assert states(record) == [(0, "stopped at report 2", "FINISHED")]
    second.resume(0)
    second.flush()
    assert states(record) == [(0, "running", "RUNNING")]
    second.report(0, report(9, 1.0))
    second.fail(0, "its worker died")
    second.finish(best=0, best_val_loss=1.0)
    assert states(record) == [(0, "failed: its worker died", "FAILED")]
    assert stored_steps(store, 0) == [4, 8, 9]
    assert record.search().best_run == second.run_of(0)


def test_projection_writes_a_whole_journal_to_an_empty_store(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    before = begin_search(is_followed=False)
    three_trials(before, make_spec)
    before.close()
    begin_search().finish()
    assert [status for _, status, _ in states(Record(store))] == ["diverged"] * 3
    assert stored_steps(store, 2) == [4, 8, 9]


def test_projection_sends_many_reports_in_order(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    """More reports than one call takes, each with all metrics there are."""
    search = begin_search()
    rare = {"sparsity": 0.5, "token_accuracy": 0.25, "bleu": 9.0, "train_objective": 2.0,
            "exact_match": 0.5, "acc": 0.5, "acc_norm": 0.25, "adapter_norm": 0.1,
            "effective_update": 0.01}  # fmt: skip
    reports = [replace(report(step, 1 / step), **rare) for step in range(1, 251)]
    entities = _MOST_REPORTS * len(METRICS + SOME_METRICS) + len(parameters_of(make_spec())) + 1
    assert entities <= 1000, "MLflow would send the status before some reports"
    with search.journal.together():
        search.trial(0, make_spec(), *reports, outcome="finished")
    search.flush()
    assert stored_steps(store, 0) == list(range(1, 251))
    assert search.mlflow.num_metrics == 250 * len(METRICS + SOME_METRICS)
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
def test_projection_writes_nothing_outside_of_the_home(
    begin_search: Begin, store: str, tmp_path: Path
) -> None:
    """A handed-over store can have an experiment that leads elsewhere, without a run."""
    elsewhere = (tmp_path.parent / "elsewhere").as_uri()
    open_client(store).create_experiment("lm", artifact_location=elsewhere)
    with pytest.raises(StoreError, match="outside of this home, where nothing is written"):
        begin_search()
    assert Record(store).searches() == []
