"""Inputs of one session of a search."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from model.corpus.corpus import Corpus
from model.spec.trial import InitFrom
from tuner.driver.team import Team
from tuner.driver.view import View
from tuner.home import Home
from tuner.journal.journal import Journal
from tuner.journal.journaled_search import JournaledSearch
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.storage.mirror import JournalMirror
from tuner.storage.states import CHECKPOINTS
from tuner.storage.storage import Storage
from tuner.tracking.backlog import note_unsynced
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.record import Record
from tuner.tracking.runs import RunSettings
from tuner.tracking.tags import DATA_FILE, SPACE_FILE, START_FOLDER, Tag
from tuner.tracking.tracker import Tracker

if TYPE_CHECKING:
    from tuner.trained.find_start import WarmStart


@dataclass(frozen=True)
class SearchContext:
    """Inputs of a session, which begins or resumes a search.

    Attributes:
        name: name of the search.
        space: search space, as edited for this session.
        space_text: text of the file of the space.
        home: home of the search.
        view: view for the user.
        corpus: prepared data.
        facts: facts of the data that specifications depend on.
        record: tracking store, to read.
        journal: journal of the search, open.
        tracker: tracking store, to write.
        team: workers of the session.
        recorded: contents of the journal before this session; None if the search begins.
        fresh: True if finished trials of other searches are trained again, not reused.
        ray: exit stack that shuts Ray down.
        mirror: sends the journal to storage; None without storage.
    """

    name: str
    space: SearchSpace
    space_text: str
    home: Home
    view: View
    corpus: Corpus
    facts: DataFacts
    record: Record
    journal: Journal
    tracker: Tracker
    team: Team
    recorded: JournaledSearch | None
    fresh: bool
    ray: ExitStack
    mirror: JournalMirror | None = None

    @property
    def storage(self) -> Storage | None:
        """Storage of the search; None without one."""
        return None if self.mirror is None else self.mirror.storage

    @property
    def folder(self) -> Path:
        """Folder of the journal and the checkpoints."""
        return self.home.search(self.name)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, by number of the trial."""
        return self.folder / CHECKPOINTS


def open_tracker(
    space: SearchSpace,
    facts: DataFacts,
    name: str,
    home: Home,
    journal: Journal,
    start: WarmStart | None,
    *,
    resume: bool = False,
) -> Tracker:
    """Open the tracking store, to record a search; a search that is resumed has a record."""
    tags = {
        Tag.SAMPLER: space.search.sampler,
        Tag.SCHEDULER: space.search.scheduler,
        "seed": str(space.search.seed),
        Tag.METRIC: space.objective.metric,
        **({} if space.search.defaults == "full" else {Tag.DEFAULTS: space.search.defaults}),
        **({Tag.INIT_FROM: start.description} if start else {}),
    }
    inputs = dataset_inputs(space.data, facts)
    journal.check_epoch()
    settings = RunSettings(
        home.tracking_uri, home.artifacts, space.name, name, tags, resume, inputs,
        journal.may_write, partial(note_unsynced, home.search(name)),
    )  # fmt: skip
    return Tracker(settings)


def attach_inputs(context: SearchContext) -> None:
    """Attach the files to the parent run that a replay or another search needs."""
    context.tracker.add_text(context.space_text, SPACE_FILE)
    send_inputs(context.tracker, context.corpus, context.home, context.facts.init_from)


def send_inputs(tracker: Tracker, corpus: Corpus, home: Home, start: InitFrom | None) -> None:
    """Attach tokenizer and digests of the data to the parent run, and the start of the trials.

    Args:
        tracker: tracker of the search.
        corpus: its prepared data.
        home: its home.
        start: checkpoint that its trials start from; None for random weights.
    """
    tracker.add_text(json.dumps(corpus.files, indent=1), DATA_FILE)
    with TemporaryDirectory() as folder:
        (tokenizer,) = corpus.tokenizer.save(folder, "huggingface")
        tracker.add_artifact(tokenizer)
    if start is not None:
        from model.checkpoints.warm_start import start_path  # imports torch

        tracker.add_artifact(start_path(home.starts, start), START_FOLDER)
