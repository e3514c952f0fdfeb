"""A search whose record is a tracking server on Postgres: complete, replayed, served, looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, expect

from model.engine.report import METRICS
from model.generation.settings import GenerationSettings
from tests.e2e.conftest import Run, Workplace, make_workplace
from tests.e2e.mlflow_picture import SIZE, take_picture
from tests.e2e.postgres import mlflow_server, postgres
from tests.tuner.tracking.recorded import stored_reports
from tuner.home.home import Home
from tuner.journal.events import Reported
from tuner.journal.journal import read_journal
from tuner.publish.mlflow_pages import comparison_page, trials_page
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.trained.generate import sample
from tuner.trained.load_trial import load_trial

pytestmark = pytest.mark.slow

SEARCH = ("search", "--space", "small.yaml", "--workers", "2", "--trials", "5", "--json")
# Run, metric, steps and values of each line in each chart of a page.
CURVES = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(
    (chart) => chart.data.map((line) => [line.uuid, line.metricKey, line.x, line.y]))"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "artifacts").mkdir()
    with postgres() as store, mlflow_server(store, folder / "artifacts") as root:
        yield make_workplace(folder, tracking_uri=root)


@pytest.fixture(scope="module")
def searched(place: Workplace) -> Run:
    run = place.tuner(*SEARCH)
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="module")
def root(place: Workplace) -> str:
    assert place.tracking_uri is not None
    return place.tracking_uri


@pytest.fixture(scope="module")
def record(root: str, searched: Run) -> Record:
    return Record(root)


@pytest.fixture(scope="module")
def search(record: Record) -> SearchRecord:
    return record.search("small-1")


@pytest.fixture(scope="module")
def trials(record: Record, search: SearchRecord) -> list[TrialRecord]:
    """Those searched, best first."""
    found = [trial for trial in record.trials(search) if trial.confirms is None]
    return sorted(found, key=lambda trial: trial.rank(search.metric))


def counts(client: MlflowClient) -> dict[str, int]:
    """How many of each kind the store holds, deleted ones left out."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids)
    return {
        "runs": len(runs),
        "metrics": sum(
            len(client.get_metric_history(run.info.run_id, name))
            for run in runs
            for name in run.data.metrics
        ),
        "inputs": sum(len(run.inputs.dataset_inputs) for run in runs),
        "datasets": len({i.dataset.digest for run in runs for i in run.inputs.dataset_inputs}),
        "versions": len(client.search_model_versions()),
        "models": len(client.search_logged_models(ids)),
    }


def test_record_is_complete(
    record: Record, search: SearchRecord, searched: Run, place: Workplace
) -> None:
    """Every report of the journal, and nothing that no journal knows."""
    events = read_journal(place.home / "searches" / "small-1")
    reported = [e for e in events if isinstance(e, Reported)]
    sent = [(e.number, e.report.step, e.report.val_loss) for e in reported]
    children = record.trials(search)
    stored = [
        (trial.number, step, values["val_loss"])
        for trial in children
        for step, values in stored_reports(record, trial).items()
    ]
    assert sorted(stored) == sorted(sent)
    assert counts(record.client).items() >= {
        "runs": 1 + len(children), "datasets": 2, "inputs": 2 + 2 * len(children),
        "versions": 1, "models": 1,
    }.items()  # fmt: skip
    assert (search.status, search.best_run) == ("finished", searched.json["best_run"])
    for trial in children:
        tags = record.client.get_run(trial.run_id).data.tags
        assert (tags["sampler"], tags["scheduler"]) == ("tpe", "asha")
        assert tags["status"] == "finished" or tags["status"].startswith("stopped at report")
    names = set(record.client.get_run(search.run_id).data.metrics)
    for number in range(2):
        worker = f"system/worker_{number}"
        assert {f"{worker}/cpu_utilization_percentage", f"{worker}/memory_megabytes"} <= names
        memory = record.client.get_metric_history(search.run_id, f"{worker}/memory_megabytes")
        assert all(50 < point.value < 10_000 for point in memory)


def test_replay_from_the_server_is_bit_exact(
    place: Workplace, searched: Run, tmp_path: Path
) -> None:
    """With nothing of the search but its record."""
    run = place.tuner("replay", "--home", str(tmp_path / "elsewhere"), "--json")
    assert run.status == 0, run.err
    assert run.json["verdict"] == "bit-exact"
    assert run.json["run"] == searched.json["best_run"]


def test_champion_of_the_server_writes_what_the_trial_does(
    root: str, searched: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", root)
    model = mlflow.pyfunc.load_model("models:/small@champion")
    settings = GenerationSettings(max_tokens=30, seed=4)
    trained = load_trial(searched.json["best_run"], home=Home.at(tmp_path))
    (expected,) = sample([trained], "the quick", settings=settings)
    assert model.predict(["the quick"], params={"max_tokens": 30, "seed": 4}) == [expected]
    assert len(expected) > 10
    assert "the model registry has it as version 1 of small, its champion" in searched.err


def test_sending_it_again_adds_nothing(place: Workplace, record: Record, searched: Run) -> None:
    before = counts(record.client)
    synced = place.tuner("sync", "small-1")
    assert "nothing was missing" in synced.out + synced.err
    assert counts(record.client) == before


# in the browser -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=SIZE)
    yield context.new_page()
    context.close()


def test_ui_opens_on_the_trials_ready_to_compare(
    page: Page, root: str, record: Record, search: SearchRecord, trials: list[TrialRecord],
    tmp_path: Path
) -> None:  # fmt: skip
    """All of them, the best first, with curves that are those of the record."""
    page.goto(f"{root}/{trials_page(search)}")
    names = page.get_by_role("link", name="small-1/")
    expect(names).to_have_count(len(trials), timeout=60_000)
    assert names.all_inner_texts() == [f"small-1/{trial.number:03d}" for trial in trials]
    expect(page.get_by_text(f"{len(trials)} matching runs")).to_be_visible()
    take_picture(page, tmp_path / "trials.png")
    drawn: dict[str, dict[str, dict[int, float]]] = {trial.run_id: {} for trial in trials}
    for run_id, metric, steps, values in page.evaluate(CURVES):
        drawn[run_id][metric] = dict(zip(steps, values, strict=True))
    for trial in trials:
        reports = stored_reports(record, trial)
        for metric in METRICS:
            curve = {step: values[metric] for step, values in reports.items()}
            assert drawn[trial.run_id][metric] == curve


def test_ui_compares_trials_with_the_right_numbers(
    page: Page, root: str, record: Record, search: SearchRecord, trials: list[TrialRecord]
) -> None:
    page.goto(f"{root}/{comparison_page(record, search)}")
    expect(page.get_by_role("heading", name=f"Comparing {len(trials)} Runs")).to_be_visible(
        timeout=60_000
    )
    name = page.get_by_role("link", name="val_loss", exact=True)
    table = name.locator("xpath=ancestor::div[count(.//div[@role='grid']) > 1][1]")
    words = table.inner_text().split()  # the names, and then row by row the values
    names, values = words[: len(METRICS)], words[len(METRICS) :]
    assert sorted(names) == sorted(METRICS)
    assert len(values) == len(names) * len(trials)
    for row, metric in enumerate(names):
        shown = map(float, values[row * len(trials) : (row + 1) * len(trials)])
        for value, trial in zip(shown, trials, strict=True):
            assert value == pytest.approx(trial.metrics[metric], rel=1e-3, abs=6e-4), metric


def test_ui_shows_the_champion_and_its_card(page: Page, root: str, search: SearchRecord) -> None:
    page.goto(f"{root}/#/models/small/versions/1")
    expect(page.get_by_text("champion", exact=False).first).to_be_visible(timeout=60_000)
    value = f"{search.metrics['best_val_loss']:.4f}"
    expect(page.get_by_text(f"val_loss {value}, by which it was selected")).to_be_visible()
    expect(page.get_by_text("What was searched")).to_be_visible()


def test_ui_shows_how_busy_the_workers_were(page: Page, root: str, search: SearchRecord) -> None:
    run = f"{root}/#/experiments/{search.experiment_id}/runs/{search.run_id}"
    page.goto(f"{run}/system-metrics")
    for worker in ("system/worker_0", "system/worker_1"):
        expect(page.get_by_text(worker).first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("memory_megabytes").first).to_be_visible()
