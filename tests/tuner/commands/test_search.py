"""`tuner search`: exit statuses and messages, of searches that never ran."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import tuner.driver.search as module
from tests.tuner.results.finished_search import result_in
from tests.tuner.simulated_search import FACTS
from tuner.cli import main
from tuner.errors import Interrupted, Replaced
from tuner.journal.edit import changes, edited
from tuner.journal.events import SearchBegun
from tuner.journal.journal import Journal, read_search
from tuner.results.result import SearchResult
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override
from tuner.storage.mirror import JournalMirror
from tuner.storage.storage import Storage

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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "command",
    [
        ("--space", LM, "--name", "it", "--set", "engine.storage=URL"),
        ("--resume", "it", "--set", "engine.storage=URL"),
        ("--resume", "it", "--space", LM, "--set", "engine.storage=URL"),
    ],
)
def test_search_of_a_lost_home_goes_on_from_storage(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    result: SearchResult, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    url = f"file://{tmp_path}/bucket"
    space, text = read_space(LM, [Override.parse(f"engine.storage={url}")])
    journal = Journal.open(tmp_path / "lost" / "searches" / "it")
    journal.append(SearchBegun(space, text, FACTS))
    mirror = JournalMirror.claim(Storage(f"{url}/it"), journal, lambda holder: None)
    mirror.send()
    mirror.close()
    journal.close()
    went_on: list[str] = []

    def go_on(name: str, **options: Any) -> SearchResult:
        recorded = read_search(options["home"].search(name))
        assert recorded is not None
        assert recorded.space == (options["edit"] or (lambda space: space))(recorded.space)
        went_on.append(name)
        return result

    monkeypatch.setattr(module, "resume", go_on)
    arguments = [each.replace("URL", url) for each in command]
    assert main(["search", "--home", str(tmp_path / "new"), "--quiet", *arguments]) == 0
    assert went_on == ["it"]
    assert f"{url} has it: its journal, 1 event, was copied" in capsys.readouterr().err
    wrong = [each.replace("URL", "s3://me:word@lm") for each in command]
    assert main(["search", "--home", str(tmp_path / "newer"), "--quiet", *wrong]) == 2
    err = capsys.readouterr().err
    assert "engine.storage must have no user" in err
    assert "word@" not in err


def test_driver_that_was_replaced_says_by_whom(run: Any) -> None:
    status, value, err = run(Replaced("lm-1", "process 42 on gpu-7, since 2026-11-22 20:15:00"))
    assert (status, value) == (3, None)
    assert err == (
        "tuner search: process 42 on gpu-7, since 2026-11-22 20:15:00, has taken over the search "
        "lm-1; this driver writes nothing more\n"
    )


@pytest.mark.parametrize(
    ("repeated", "edits"),
    [
        ((), []),
        (("--trials", "9"), ["search.trials"]),
        (("--max-time", "1h"), ["search.max_seconds"]),
    ],
)
def test_same_command_goes_on(
    repeated: tuple[str, ...], edits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    result: SearchResult,
) -> None:  # fmt: skip
    """It keeps what a `--resume` between said, here the patience."""
    command = ("search", "--space", LM, "--home", str(tmp_path), "--name", "it", "--trials", "6")
    command += ("--set", "budget.tokens=20_000")
    spaces: list[SearchSpace] = []

    def begin(space: SearchSpace, name: str, space_text: str, **options: Any) -> SearchResult:
        spaces.append(space)
        patient = edited(space, [Override.parse("search.patience=5")], name)
        with closing(Journal.open(tmp_path / "searches" / name)) as journal:
            journal.append(SearchBegun(patient, space_text, FACTS))
        return result

    def resume(name: str, edit: Any, **options: Any) -> SearchResult:
        recorded = read_search(tmp_path / "searches" / name)
        assert recorded is not None
        spaces.append(edit(recorded.space))
        return result

    monkeypatch.setattr(module, "search", begin)
    monkeypatch.setattr(module, "resume", resume)
    assert main([*command]) == 0
    assert main([*command, *repeated]) == 0
    assert changes(*spaces) == [*edits, "search.patience"]


def test_interrupt_by_python_itself_is_a_ctrl_c(run: Any) -> None:
    assert run(KeyboardInterrupt())[0] == 130
