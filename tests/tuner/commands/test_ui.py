"""`tuner ui`: the pages of MLflow, and when a browser opens."""

from __future__ import annotations

import math
import subprocess
import sys
import webbrowser
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from model.engine.report import Status
from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import Begin, report
from tuner.commands.ui import has_browser
from tuner.errors import RecordError, StoreError
from tuner.home.home import Home
from tuner.publish import mlflow_pages as ui
from tuner.publish.mlflow_pages import comparison_page, serve, trials_page
from tuner.tracking.record import Record
from tuner.tracking.tags import Tag


@pytest.fixture
def home(tmp_path: Path, store: str) -> Home:
    return Home(tmp_path, store)


@pytest.fixture
def runs(begin_search: Begin, make_spec: MakeSpec) -> list[str]:
    """Runs of four trials: good, bad, diverged, and one that confirms the first."""
    search = begin_search()
    losses = (2.0, 3.0, math.nan, 1.0)
    for number, loss in enumerate(losses):
        search.begin(number, make_spec(seed=number), confirms=0 if number == 3 else None)
        status = Status.DIVERGED if math.isnan(loss) else Status.FINISHED
        search.report(number, report(4, loss, status), outcome=str(status))
    search.finish(best=0)
    return [search.run_of(number) for number in range(4)]


def query(page: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlparse(page[2:]).query).items()}


@pytest.mark.slow
def test_trials_page_lists_trials_best_first(home: Home, runs: list[str]) -> None:
    """MLflow answers the query of the page with the trials, best first."""
    record = Record(home.tracking_uri)
    search = record.search()
    parameters = query(trials_page(search))
    order = f"{parameters['orderByKey']} {'ASC' if parameters['orderByAsc'] == 'true' else 'DESC'}"
    answer = record.client.search_runs(
        [search.experiment_id], parameters["searchFilter"], order_by=[order]
    )
    assert [run.info.run_id for run in answer] == runs[:3]
    assert parameters["compareRunsMode"] == "CHART"


def test_trials_page_lists_largest_first_if_larger_is_better(home: Home, runs: list[str]) -> None:
    record = Record(home.tracking_uri)
    search = record.search()
    search.tags[Tag.METRIC] = "bleu"
    parameters = query(trials_page(search))
    assert (parameters["orderByKey"], parameters["orderByAsc"]) == ("metrics.`bleu`", "false")


def test_comparison_page_lists_best_trials(
    home: Home, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(home.tracking_uri)
    monkeypatch.setattr(ui, "_COMPARED", 2)
    page = comparison_page(record, record.search())
    assert page is not None
    assert page.startswith("#/compare-runs?")
    assert query(page)["runs"] == f'["{runs[0]}", "{runs[1]}"]'


def test_ui_of_tracking_server_prints_address_without_password(
    home: Home, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, opened, lines = Record(home.tracking_uri), list[str](), list[str]()
    monkeypatch.setattr(ui, "Record", lambda uri: record)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    remote = Home(home.root, "http://admin:hush@tracking:5000/")
    assert serve(remote, "", None, lines.append, search="lm-1", browser=True) == 0
    assert lines[0] == "The tracking server http://tracking:5000 has the searches. The search lm-1:"
    assert opened == lines[1:2] == [f"http://tracking:5000/{trials_page(record.search())}"]
    assert "hush" not in "".join(lines)
    with pytest.raises(RecordError, match="no search is called lm-7; the newest are: lm-1"):
        serve(remote, "", None, lines.append, search="lm-7")


def test_ui_keeps_the_store_off_command_lines(
    home: Home, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user of a machine can read the command lines of all its processes."""
    record, started = Record(home.tracking_uri), list[tuple[list[str], dict[str, str]]]()
    uri = "postgresql://me:hush@db/runs"

    def start(command: list[str], *, env: dict[str, str], **_: object) -> None:
        started.append((command, env))
        raise KeyboardInterrupt

    monkeypatch.setattr(ui, "Record", lambda uri: record)
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        serve(Home(home.root, uri), "127.0.0.1", None, lambda line: None)
    (command, environment) = started[0]
    assert "hush" not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == uri


@pytest.mark.parametrize(
    ("host", "warns"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True), ("", True)]
)
def test_ui_warns_of_a_host_that_others_reach(
    home: Home, runs: list[str], monkeypatch: pytest.MonkeyPatch, host: str, warns: bool
) -> None:
    record, lines = Record(home.tracking_uri), list[str]()

    def start(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ui, "Record", lambda uri: record)
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        serve(home, host, None, lines.append)
    assert ("no login" in lines[0]) == warns
    assert ("ssh -L" in lines[0]) == warns


def test_ui_reports_unreachable_server(home: Home) -> None:
    remote = Home(home.root, "http://127.0.0.1:9/")
    with pytest.raises(StoreError, match="it refuses connections"):
        serve(remote, "", None, print)


@pytest.mark.parametrize(
    ("variables", "is_terminal", "expected"),
    [
        ({"DISPLAY": ":0"}, True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, True),
        ({"DISPLAY": ":0"}, False, False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, True, False),
        ({}, True, False),
    ],
)
def test_ui_opens_browser_only_on_desktop(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_terminal: bool, expected: bool
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "platform", "linux")
    assert has_browser() is expected
