"""Kept weights are those of the journal: it names them by digest."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from model.checkpoints import checkpoint
from model.checkpoints.header import recorded_digest
from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.simulated_search import FACTS
from tests.tuner.tracking.recorded import SPACE
from tuner.errors import JournalError, RecordError
from tuner.home.home import Home
from tuner.journal.events import Event, Reported, SearchBegun, SessionEnded, TrialBegun
from tuner.journal.journal import JOURNAL_FILE, Journal, read_entries
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.tracking.tags import CHECKPOINT_FILE, Tag
from tuner.trained.kept_checkpoint import kept_checkpoint
from tuner.trained.recorded_trials import RecordedTrials


class Recorded:
    """A store with one search, its journal and the checkpoint of its trial 0."""

    def __init__(self, folder: Path, make_spec: MakeSpec) -> None:
        self.folder = folder
        self.home = Home(folder / "home", "sqlite://")
        self.run = TrialRecord("0" * 32, 0, "lm-1", "", {}, {}, {}, checkpoint_tokens=128)
        self.file = folder / Path(CHECKPOINT_FILE).name
        self.write_weights(1.0)
        self.events: list[Event] = [
            SearchBegun(SPACE, "", FACTS),
            TrialBegun(0, {}, make_spec()),
            Reported(0, Report("0", Status.TRAINING, 4, 128, 2.0, 2.0, 1.0, 0.01)),
        ]

    def write_weights(self, value: float) -> str:
        checkpoint.write(self.file, {"weights.x": torch.full((2,), value)}, {"step": 4})
        return recorded_digest(self.file)

    def record(self, *events: Event) -> None:
        """Append events to the journal, and attach it."""
        with closing(Journal.open(self.folder / "lm-1")) as journal:
            for event in (*self.events, *events):
                journal.append(event)
        self.events = []
        digest = read_entries(self.folder / "lm-1")[-1].digest
        tags = {Tag.JOURNAL: digest}
        self.record_of_search = SearchRecord("r", "1", "lm-1", "finished", 0.0, None, {}, tags)

    def search(self, name: str) -> SearchRecord:
        assert name == "lm-1"
        return self.record_of_search

    def download(self, run_id: str, name: str, folder: str) -> Path:
        file = self.folder / "lm-1" / name if name == JOURNAL_FILE else self.file
        return Path(shutil.copy(file, folder))

    def kept(self) -> Path | None:
        folder = self.folder / "download"
        folder.mkdir(exist_ok=True)
        trials = RecordedTrials(cast(Any, self), self.home)
        trial = trials.read(self.run)
        return kept_checkpoint(trials, trial, str(folder))


@pytest.fixture
def recorded(tmp_path: Path, make_spec: MakeSpec) -> Recorded:
    return Recorded(tmp_path, make_spec)


def end(weights: dict[int, str]) -> SessionEnded:
    return SessionEnded("finished", best=0, first_turn=0.0, kept=(0,), weights=weights)


def test_kept_weights_are_compared_with_the_journal(recorded: Recorded) -> None:
    recorded.record(end({0: recorded.write_weights(1.0)}))
    assert recorded.kept() is not None
    recorded.write_weights(0.0)  # with a checksum that fits
    with pytest.raises(
        RecordError,
        match=r"weights of trial 0 of lm-1 are not those that the search kept: their digest is "
        r"\w+…, and its journal has \w+…; delete state/checkpoint.safetensors of the run 0+, and",
    ):
        recorded.kept()


def test_journal_with_another_digest_is_noticed(recorded: Recorded) -> None:
    """Whoever replaces the weights cannot write their digest into the journal unnoticed."""
    recorded.record(end({0: recorded.write_weights(1.0)}))
    honest = recorded.record_of_search
    recorded.record(end({0: recorded.write_weights(0.0)}))
    shutil.rmtree(recorded.folder / "lm-1")
    recorded.record(end({0: recorded.write_weights(0.0)}))
    recorded.record_of_search = honest
    with pytest.raises(JournalError, match="is not the one that was recorded"):
        recorded.kept()


def test_weights_that_no_session_kept_have_no_digest(recorded: Recorded) -> None:
    recorded.record(end({}))
    recorded.write_weights(0.0)
    assert recorded.kept() is not None


def test_digest_of_an_older_report_says_nothing_of_newer_weights(recorded: Recorded) -> None:
    """A driver that is killed after it kept weights, and before it ended its session."""
    recorded.record(end({0: recorded.write_weights(1.0)}))
    recorded.record(Reported(0, Report("0", Status.TRAINING, 8, 256, 2.0, 2.0, 1.0, 0.01)))
    recorded.run = replace(recorded.run, checkpoint_tokens=256)
    recorded.write_weights(2.0)
    assert recorded.kept() is not None
    recorded.record(end({0: "0" * 64}))
    with pytest.raises(RecordError, match="are not those that the search kept"):
        recorded.kept()
