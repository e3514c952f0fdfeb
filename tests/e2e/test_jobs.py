"""A search that is handed over: submitted, looked at, stopped, submitted again."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.e2e.conftest import Workplace, make_workplace

pytestmark = pytest.mark.slow

SEARCH = ("--space", "small.yaml", "--workers", "1", "--trials", "4")
LONG = ("--set", "budget.tokens=100_000", "--set", "confirm.top=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("jobs"))


def test_search_outlives_who_submits_it_and_goes_on(place: Workplace) -> None:
    submitted = place.tuner("submit", *SEARCH, *LONG, "--json")
    assert submitted.status == 0, submitted.err
    assert submitted.json["search"] == "small-1"
    with place.start("attach", "small-1", stdout=subprocess.PIPE) as attached:
        assert attached.stderr is not None
        for line in attached.stderr:
            if " report 1/" in line:
                break
        running = place.tuner("status", "small-1", "--json").json
        assert (running["state"], running["trials"]) == ("running", 4)
        text = (place.folder / "small.yaml").read_text()
        (place.folder / "small.yaml").write_text(
            text.replace("α_max: {log: [1e-3,", "α_max: {log: [2e-3,")
        )
        edited = place.tuner("edit", "small-1", "--space", "small.yaml")
        assert edited.status == 0, edited.err
        assert "small-1 goes on with another hyperparameters.max_learning_rate" in edited.out
        assert place.tuner("status", "small-1", "--json").json["state"] == "running"
        stopped = place.tuner("stop", "small-1", "--json")
        assert stopped.status == 0, stopped.err
        assert stopped.json["state"] == "interrupted"
        attached.communicate(timeout=60)
        assert attached.returncode == 0
    logs = place.tuner("logs", "small-1").out
    assert "'tuner stop' was called: waiting for the reports under way" in logs
    assert "Stopped by 'tuner stop'" in logs
    on = place.tuner("submit", *SEARCH, *LONG, "--name", "small-1")
    assert on.status == 0, on.err
    again = place.tuner("submit", "--resume", "small-1")  # while it starts
    assert again.status == 2
    assert "is running already, by process" in again.err
    followed = place.tuner("logs", "small-1", "-f")
    assert "goes on from its journal" in followed.out
    wait_for_state(place, "small-1", "finished")
    ended = place.tuner("attach", "small-1")
    assert "small-1: finished, 4/4 trials" in ended.out
    (place.home / "mlflow.db").unlink()  # the journal is enough to make it again
    synced = place.tuner("sync", "small-1")
    assert synced.status == 0, synced.err
    assert "4 runs" in synced.out
    exported = place.tuner("export", "--search", "small-1", "-o", "exported")
    assert exported.status == 0, exported.err
    assert (place.folder / "exported" / "tokenizer.json").is_file()
    place.tuner("delete", "small-1", "--yes")
    assert not (place.home / "logs" / "small-1.log").exists()


def test_driver_that_cannot_begin_is_reported(place: Workplace) -> None:
    run = place.tuner("submit", *SEARCH, "--set", "engine.device=cuda", "--name", "none")
    assert run.status == 2
    assert "no GPU that can be used" in run.err
    assert "none has not begun: process" in run.err


def wait_for_state(place: Workplace, name: str, state: str) -> None:
    until = time.monotonic() + 120
    while place.tuner("status", name, "--json").json["state"] != state:
        assert time.monotonic() < until
        time.sleep(0.5)
