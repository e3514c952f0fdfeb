"""`tuner search`: exit statuses and messages, of searches that never ran."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import tuner.driver.search as module
from tests.tuner.results.finished_search import result_in
from tuner.cli import main
from tuner.errors import Interrupted
from tuner.results.result import SearchResult

LM = str(Path(__file__).parents[3] / "search_spaces" / "lm.yaml")
DEAD = "the tracking store http://x does not take all of the search made-up-1: it does not answer"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return result_in(tmp_path_factory.mktemp("result"))


@pytest.fixture
def run(
    result: SearchResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Run the command with a search that has a result, or raises an exception."""

    def run(error: BaseException | None = None, **fields: Any) -> tuple[int, Any, str]:
        def search(*arguments: Any, **options: Any) -> SearchResult:
            if error is not None:
                raise error
            return SearchResult(**(vars(result) | fields))

        monkeypatch.setattr(module, "search", search)
        home = str(tmp_path / "my home")
        status = main(["search", "--space", LM, "--home", home, "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else None, err

    return run


def test_search_that_is_recorded_succeeds(run: Any) -> None:
    status, value, err = run()
    assert (status, value["unsynced"]) == (0, False)
    assert "warning" not in err


@pytest.mark.parametrize("hint", ["; 'tuner sync made-up-1' sends it later", ""])
def test_store_that_fails_is_a_warning(run: Any, hint: str) -> None:
    status, value, err = run(problem=DEAD + hint)
    assert (status, value["unsynced"]) == (0, True)
    assert f"tuner search: warning: {DEAD}" in err
    assert err.count("'tuner sync made-up-1'") == 1


def test_journal_that_lacks_events_is_a_bad_result(run: Any) -> None:
    lost = "cannot write journal.jsonl: No space left on device; 2 events wait; they are lost"
    status, value, err = run(lost=lost)
    assert status == 1
    assert value["best_trial"] is not None
    assert f"{lost}; 'tuner search --resume made-up-1' repairs it" in err


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_is_the_exit_status(run: Any, number: int, expected: int) -> None:
    assert run(halted="interrupted", signal=number)[0] == expected
    status, _, err = run(Interrupted(number, "made-up-1"))
    assert status == expected
    assert "tuner search --resume made-up-1 --home '" in err
    status, _, err = run(Interrupted(number))
    assert status == expected
    assert err.endswith("before the search began; nothing was recorded\n")


def test_interrupt_by_python_itself_is_a_ctrl_c(run: Any) -> None:
    assert run(KeyboardInterrupt())[0] == 130
