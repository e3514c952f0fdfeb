"""A record is a promise: a home made by commit 61b80c3 replays, resumes and serves its model."""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Workplace

HOME = Path("/tmp/home-61b80c3")
ARCHIVE = Path(__file__).parent / "homes" / "61b80c3.tar.xz"


@pytest.fixture(scope="module")
def old() -> Iterator[Workplace]:
    """The home where it was made; a lock keeps other test runs on this machine out."""
    with Path(f"{HOME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(HOME, ignore_errors=True)
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(HOME.parent, filter="data")
        yield Workplace(HOME)
        shutil.rmtree(HOME, ignore_errors=True)


def reports_of(journal: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Trial and step → the report, without what depends on time."""
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    volatile = {"crc", "time_ms", "checkpoint", "seconds", "tokens_per_second"}
    return {
        (e["number"], e["step"]): {k: v for k, v in e.items() if k not in volatile}
        for e in events
        if e["event"] == "report"
    }


def outcomes_of(journal: Path) -> dict[int, str]:
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return {e["number"]: e["outcome"] for e in events if e["event"] == "outcome"}


@pytest.mark.slow
def test_old_home_replays(old: Workplace) -> None:
    run = old.tuner("replay", "--search", "small-1", "--json")
    assert run.status == 0, run.err
    same_machine = not run.json["changed"]
    assert run.json["verdict"] == ("bit-exact" if same_machine else "within tolerance")
    assert run.json["reports"] == 6


@pytest.mark.slow
def test_old_home_resumes_a_killed_search(old: Workplace) -> None:
    """The resumed search trains what 61b80c3 itself trained when it resumed the same journal."""
    run = old.tuner("search", "--resume", "cut-1", "--json")
    assert run.status == 0, run.err
    journal = old.home / "searches" / "cut-1" / "journal.jsonl"
    expected, found = reports_of(HOME / "cut-resumed.jsonl"), reports_of(journal)
    if "their last bits may differ" in run.err:  # another processor than the home was made on
        assert math.isclose(
            found[0, max(step for number, step in found if number == 0)]["val_loss"],
            expected[0, max(step for number, step in expected if number == 0)]["val_loss"],
            rel_tol=0.02,
        )
        return
    assert found == expected
    assert outcomes_of(journal) == outcomes_of(HOME / "cut-resumed.jsonl")


@pytest.mark.slow
def test_old_home_serves_its_registered_model(
    old: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old.home}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/small@champion")
    (text,) = served.predict(["a"], params={"max_tokens": 8, "temperature": 0.0})
    assert isinstance(text, str)
    assert text
