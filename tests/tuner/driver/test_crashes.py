"""Crashes at every moment: the next driver goes on as if nothing had happened."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from model.engine.report import Report
from tests.tuner.conductor.test_cool_downs import TEXT as BUDGETS
from tests.tuner.driver.driven_search import Crash, Session, decisions
from tests.tuner.simulated_search import SPACE, space_of, trained
from tuner.journal import journal as journal_module
from tuner.journal.edit_request import request_edit
from tuner.journal.events import Event
from tuner.journal.journal import JOURNAL_FILE, read_journal, read_search
from tuner.space.space import SearchSpace

# Two trials of the first search are paused and resumed, one is confirmed; those of the second have
# a shorter budget, and those of the third are replaced by mutations of better ones.
SMALL = SPACE.replace("tokens: 27_000, reports: 9", "tokens: 8_000, reports: 4").replace(
    "top: 2", "top: 1"
)


@dataclass
class Disk:
    """What the journal writes to: it is as fast as memory, and breaks on demand.

    Attributes:
        ends: number of bytes that were written in all, after each write.
        breaks_at: number of bytes with which the process crashes, in the middle of a write or
            between two; None for never.
        written: number of bytes that were written.
    """

    ends: list[int] = field(default_factory=list)
    breaks_at: int | None = None
    written: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, file: int) -> None:
        """Nothing is cached here."""

    def pwrite(self, file: int, data: bytes, offset: int) -> int:
        end = self.written + len(data)
        if self.breaks_at is not None and end >= self.breaks_at:
            os.pwrite(file, data[: self.breaks_at - self.written], offset)
            raise Crash
        self.ends.append(end)
        self.written = end
        return os.pwrite(file, data, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(journal_module, "os", disk)
    return disk


def run(folder: Path, space: SearchSpace, **options: Any) -> list[Event]:
    session = Session(folder, space, **options)
    session.run()
    return session.end()


def found_by(space: SearchSpace, folder: Path) -> Callable[[str], list[Report]]:
    """Return what finds the trials 1 and 4 of a search in another one, which finished them."""
    session = Session(folder, space)
    session.run()
    session.end()
    trials = session.conductor.board.trials
    reports = {
        trials[n].spec.hash: [trained(trials[n], step) for step in trials[n].report_steps]
        for n in (1, 4)
    }
    return lambda spec_hash: reports.get(spec_hash, [])


SEARCHES = {
    "asha": ("trials: 6, sampler: random, scheduler: asha", SMALL),
    "budgets": (
        "trials: 3, sampler: random, scheduler: none",
        BUDGETS.replace("[4_096, 12_288, 24_576], reports: 12", "[4_096, 12_288], reports: 6"),
    ),
    "pbt": ("trials: 4, sampler: random, scheduler: pbt", SMALL),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_crash_at_every_write_changes_nothing(tmp_path: Path, disk: Disk, search: str) -> None:
    """After each write, and in the middle of each line, also of lines that are written at once."""
    space = space_of(tmp_path, *SEARCHES[search])
    find = found_by(space, tmp_path / "other")
    disk.ends, disk.written = [], 0
    expected = decisions(run(tmp_path / "whole", space, find=find))
    lines = (tmp_path / "whole" / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    ends = list(itertools.accumulate(map(len, lines)))
    middles = [end - len(line) // 2 for end, line in zip(ends, lines, strict=True)]
    assert {*disk.ends} < {*ends}, "some lines are written at once"
    for place in (*disk.ends, *middles):
        folder = tmp_path / str(place)
        disk.written, disk.breaks_at = 0, place
        with pytest.raises(Crash):
            run(folder, space, find=find)
        assert (folder / JOURNAL_FILE).stat().st_size == place
        disk.breaks_at = None
        if place < ends[-1]:
            run(folder, space, find=find)
        assert decisions(read_journal(folder)) == expected


def test_crashes_of_an_edited_search_change_nothing(tmp_path: Path, disk: Disk) -> None:
    """Each driver is killed after some lines more than the one before; the last ones end.

    Trials that counted as stopped, when the search ended, are resumed after its edit.
    """
    search, text = SEARCHES["asha"]
    space = space_of(tmp_path, search, text)
    edited = space_of(tmp_path, search.replace("6", "9"), text)
    run(tmp_path / "whole", space)
    expected = decisions(run(tmp_path / "whole", edited, slots=3))
    kinds = {line.partition("(")[0] for line in expected}
    assert kinds == {"SearchBegun", "SearchEdited", "TrialBegun", "TrialResumed", "Reported",
                     "TrialFailed"}  # fmt: skip
    folder, crashes = tmp_path / "killed", 0
    for each, slots in ((space, 2), (edited, 3)):
        for place in range(500, 10**6, 700):
            disk.written, disk.breaks_at = 0, place
            with suppress(Crash):
                run(folder, each, slots=slots)
                break
            crashes += 1
    assert crashes > 10
    assert decisions(read_journal(folder)) == expected


def test_crashes_around_an_edit_of_a_running_search_change_nothing(
    tmp_path: Path, disk: Disk
) -> None:
    """The edit adds trials before the first report: each lane that was idle trains one at once."""
    search, text = "trials: %d, sampler: random, scheduler: asha", SMALL
    space, more = (space_of(tmp_path, search % number, text) for number in (2, 5))

    def run_asked(folder: Path) -> None:
        recorded = read_search(folder)
        session = Session(folder, recorded.space if recorded else space, slots=3)
        session.run(on_turn=session.driver._take_edits)
        session.end()

    request_edit_of(tmp_path / "whole", more)
    run_asked(tmp_path / "whole")
    expected = decisions(read_journal(tmp_path / "whole"))
    assert [line.partition("(")[0] for line in expected][:5] == [
        "SearchBegun", "TrialBegun", "TrialBegun", "SearchEdited", "TrialBegun",
    ]  # fmt: skip
    folder, crashes = tmp_path / "killed", 0
    request_edit_of(folder, more)
    for place in range(500, 10**6, 600):
        disk.written, disk.breaks_at = 0, place
        with suppress(Crash):
            run_asked(folder)
            break
        crashes += 1
    assert crashes > 10
    assert decisions(read_journal(folder)) == expected


def request_edit_of(folder: Path, space: SearchSpace) -> None:
    folder.mkdir()
    request_edit(folder, space, "")
