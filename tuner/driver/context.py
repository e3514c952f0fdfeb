"""The inputs of one session of a search."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from model.corpus.corpus import Corpus
from tuner.driver.view import View
from tuner.home import Home
from tuner.journal.journal import Journal
from tuner.journal.journaled_search import JournaledSearch
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.tracking.record import Record
from tuner.tracking.tags import DATA_FILE, SPACE_FILE, START_FOLDER
from tuner.tracking.tracker import Tracker


@dataclass(frozen=True)
class SearchContext:
    """All that a driver needs to begin, or to go on.

    Attributes:
        name: of the search.
        space: what it searches.
        space_text: the file that the space came from.
        home: where it lives.
        view: is told what happens.
        corpus: the data.
        facts: what specifications know of them.
        record: the store, to read.
        journal: open.
        tracker: the store, to write.
        recorded: what the journal says of the search; None if it begins.
        fresh: whether finished trials of other searches are trained again.
        ray: what runs until all trials are trained.
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
    recorded: JournaledSearch | None
    fresh: bool
    ray: ExitStack

    @property
    def folder(self) -> Path:
        """Its journal and checkpoints."""
        return self.home.search(self.name)


def _keep_inputs(session: SearchContext) -> None:
    """Attach what a replay, or another search, will need."""
    tracker, corpus, start = session.tracker, session.corpus, session.facts.init_from
    tracker.add_text(session.space_text, SPACE_FILE)
    tracker.add_text(json.dumps(corpus.files, indent=1), DATA_FILE)
    with TemporaryDirectory() as folder:
        (tokenizer,) = corpus.tokenizer.save(folder, "huggingface")
        tracker.add_artifact(tokenizer)
    if start is not None:
        from model.checkpoints.warm_start import start_path  # brings torch

        tracker.add_artifact(start_path(session.home.starts, start), START_FOLDER)
