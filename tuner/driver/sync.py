"""Sends to the tracking store and the storage what the journal of a search holds and they lack.

A journal has every event. The others may lack some: a server was down, its disk was full, or the
driver was killed. Their projections follow the journal from its beginning until they are level.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from model.corpus.corpus import Corpus
from model.errors import CorpusError
from tuner.errors import RecordError, StorageError, StoreError
from tuner.home.home import Home
from tuner.home.names import check_name
from tuner.journal.events import SessionEnded
from tuner.journal.fold import Search
from tuner.journal.follower import Cursor, Follower
from tuner.journal.journal import JOURNAL_FILE, Feed, Journal, check_digest
from tuner.journal.lines import Entry
from tuner.storage.mirror import begin_mirror, mirrored
from tuner.storage.states import CHECKPOINTS
from tuner.storage.storage import Storage
from tuner.texts.formatting import listed
from tuner.tracking.projection import BYTES_PER_SECOND, CURSOR, MlflowProjection
from tuner.tracking.record import Record
from tuner.tracking.tags import REPORT_FILE, Tag
from tuner.trained.moved_data import present_space

_PATIENCE_SECONDS = 30.0  # without any progress of the store


@dataclass(frozen=True)
class SyncResult:
    """Numbers of runs and events that `sync` added to the store, and what else was sent.

    Attributes:
        runs: number of runs of trials.
        metrics: number of values of all curves.
        endings: number of endings of trials and of the search.
        files: names of the files attached to the search and sent to its storage, and of its
            registered model.
    """

    runs: int
    metrics: int
    endings: int
    files: tuple[str, ...]

    @property
    def description(self) -> str:
        """Text such as `2 runs, 30 metrics and report.html`."""
        counts = {"run": self.runs, "metric": self.metrics, "ending": self.endings}
        parts = [f"{n} {noun}{'s' if n > 1 else ''}" for noun, n in counts.items() if n]
        return listed([*parts, *self.files], "and") or "nothing was missing"


_NOTHING = SyncResult(0, 0, 0, ())


def sync(home: Home, name: str) -> SyncResult:
    """Send to the store and the storage what the journal of a search holds and they lack.

    Args:
        home: home of the search.
        name: name of the search.

    Returns:
        Numbers of what was sent.

    Raises:
        JournalInUse: if the search is running.
        JournalError: if the journal is damaged, or another version of tuner wrote it.
        RecordError: if there is no such journal.
        StoreError: if the store does not accept the data.
        StorageError: if the storage does not; the store has everything then.
    """
    folder = home.search(check_name(name))
    path = folder / JOURNAL_FILE
    if not path.is_file():
        raise RecordError(f"there is no {path}; 'tuner list' lists the recorded searches")
    with closing(Journal.open(folder)) as journal:
        search, entries = Search.of(journal.events), journal.entries
        if search is None:  # the driver was killed before the search began
            return _NOTHING
        is_sent, refusal = False, None
        try:
            is_sent = _send_journal(home, search, journal)
        except StorageError as error:  # the store gets the rest nevertheless
            refusal = error
    corpus = partial(_corpus, home=home)
    mlflow = MlflowProjection.of(home, name, search.begun, corpus, resume=True, is_old=True)
    previous = mlflow.runs.previous
    check_digest(name, entries, previous.tags.get(Tag.JOURNAL) if previous else None)
    missing = [_missing_end(search, entries)] if search.end is None else []
    follower = Follower(mlflow, Feed([*entries, *missing])).start()
    problem = follower.flush(_PATIENCE_SECONDS + _kept_bytes(search, folder) / BYTES_PER_SECOND)
    follower.close(0.0 if problem else _PATIENCE_SECONDS)
    if problem:
        raise StoreError(problem)
    Cursor(folder, CURSOR).write(len(entries), entries[-1].digest)  # the journal has no more
    endings = mlflow.num_endings + mlflow.parent.num_ends
    files = tuple(mlflow.parent.sent)
    sent = SyncResult(mlflow.num_created, mlflow.num_metrics, endings, files)
    published = _publish(home, search, name, sent)
    if refusal is not None:
        raise refusal
    in_storage = (f"{JOURNAL_FILE} in the storage",) if is_sent else ()
    return replace(sent, files=(*files, *published, *in_storage))


def _send_journal(home: Home, search: Search, journal: Journal) -> bool:
    """Send the journal to the storage of the search; return False if it has it, or there is none.

    Raises:
        JournalInUse: if another home runs the search.
        StorageError: if the storage does not accept the data, or has another journal.
    """
    url = search.space.engine.storage
    if url is None:
        return False
    storage = Storage(url).at(journal.path.parent.name)
    if mirrored(storage) == journal.path.read_bytes():
        return False
    mirror = begin_mirror(storage, home, search.facts, journal)
    if (problem := mirror.close(_PATIENCE_SECONDS)) is not None:
        raise StorageError(mirror.reason or problem)
    return True


def _missing_end(search: Search, entries: Sequence[Entry]) -> Entry:
    """Return the end of a session whose driver was killed."""
    return Entry(SessionEnded("interrupted", time_ms=search.newest_ms), entries[-1].digest)


def _kept_bytes(search: Search, folder: Path) -> int:
    """Return the size of the checkpoints that may have to be sent."""
    kept = search.end.kept if search.end else ()
    files = (file for number in kept for file in (folder / CHECKPOINTS / str(number)).glob("*"))
    return sum(file.stat().st_size for file in files)


def _corpus(search: Search, home: Home) -> Corpus | None:
    """Return the prepared data of a search; None if the home has them no more."""
    from model.corpus.prepare import cached

    space, facts = present_space(search.space, home), search.facts
    try:
        digest = facts.data_fingerprint
        corpus = cached(space.data, space.tokenizer, home.corpora, digest=digest)
    except CorpusError:  # the file of the tokenizer is gone
        return None
    if corpus is None or corpus.tokenizer_fingerprint != facts.tokenizer_fingerprint:
        return None
    return corpus


def _publish(home: Home, search: Search, name: str, sent: SyncResult) -> tuple[str, ...]:
    """Register the model and write the report, if they are missing or older than what was sent."""
    if search.end is None or search.end.best is None:
        return ()
    from tuner.publish.publish import attach_report, register_model
    from tuner.trained.load_search import load_search  # imports what a search needs

    result, published = load_search(name, home=home), []
    if model := register_model(home, result):
        published.append(model)
    if sent != _NOTHING or not Record(home.tracking_uri).has(result.run_id, REPORT_FILE):
        attach_report(home, result)
        published.append(REPORT_FILE)
    return tuple(published)
