"""Sends to the tracking store what the journal of a search holds and the store lacks.

A journal has every report. The store may lack some: its server was down, its disk was full, or the
driver was killed. The tracker gets all trials of the journal, and sends what is missing once.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from model.corpus.corpus import Corpus
from model.errors import CorpusError
from tuner.conductor.outcome import INTERRUPTED
from tuner.driver.catch_up import check_recorded, send_trials
from tuner.driver.context import send_inputs
from tuner.errors import RecordError
from tuner.formatting import listed
from tuner.home import Home
from tuner.journal.events import SessionEnded
from tuner.journal.journal import Journal
from tuner.journal.journaled_search import JournaledSearch, JournaledTrial
from tuner.names import check_name
from tuner.space.space import SearchSpace
from tuner.storage.states import CHECKPOINTS, present_state
from tuner.storage.storage import Storage
from tuner.tracking.backlog import note_unsynced
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.progress import final_tags
from tuner.tracking.record import Record
from tuner.tracking.runs import RunSettings
from tuner.tracking.store import store_errors
from tuner.tracking.tags import JOURNAL_FILE, REPORT_FILE, SPACE_FILE, TOKENIZER_FILE, Tag
from tuner.tracking.tracker import Tracker
from tuner.trained.moved_data import present_space


@dataclass(frozen=True)
class SyncResult:
    """Numbers of runs and events that `sync` added to the store.

    Attributes:
        runs: number of runs of trials.
        metrics: number of values of all curves.
        endings: number of endings of trials and of the search.
        files: names of the files attached to the search, and of its registered model.
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
    """Send to the store what the journal of a search holds and the store lacks.

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
    """
    folder = home.search(check_name(name))
    path = folder / JOURNAL_FILE
    if not path.is_file():
        raise RecordError(f"there is no {path}; 'tuner list' lists the recorded searches")
    with closing(Journal.open(folder)) as journal:
        search, digests = JournaledSearch.of(journal.events), journal.digests
    if search is None:  # the driver was killed before the search began
        return _NOTHING
    space = search.space
    inputs = dataset_inputs(space.data, search.facts)
    settings = RunSettings(
        home.tracking_uri, home.artifacts, space.name, name, _tags(space), resume=True,
        inputs=inputs, note_unsynced=partial(note_unsynced, folder),
    )  # fmt: skip
    tracker = Tracker(settings)
    with closing(tracker):
        check_recorded(tracker, name, digests)
        send_trials(tracker, search, unfinished="interrupted")
        tracker.flush()
        files = _send_files(tracker, search, home, folder, digests[-1])
        is_end_sent = _send_end(tracker, search)
    endings = tracker.num_endings + is_end_sent
    sent = SyncResult(tracker.num_created, tracker.num_metrics, endings, files)
    return replace(sent, files=(*files, *_publish(home, search, name, sent)))


def _tags(space: SearchSpace) -> dict[str, str]:
    """Return the tags of the parent run."""
    return {
        Tag.SAMPLER: space.search.sampler,
        Tag.SCHEDULER: space.search.scheduler,
        Tag.SEED: str(space.search.seed),
        Tag.METRIC: space.objective.metric,
        **({} if space.search.defaults == "full" else {Tag.DEFAULTS: space.search.defaults}),
    }


def _send_files(
    tracker: Tracker, search: JournaledSearch, home: Home, folder: Path, digest: str
) -> tuple[str, ...]:
    """Send the space, the journal, the tokenizer, and the kept checkpoints that still exist."""
    record = tracker.runs.record
    with store_errors(tracker.uri):
        artifacts = record.client.list_artifacts(tracker.run_id)
    sizes = {file.path: file.file_size for file in artifacts}
    sent = []
    if search.space_text and SPACE_FILE not in sizes:
        tracker.add_text(search.space_text, SPACE_FILE)
        sent.append(SPACE_FILE)
    if TOKENIZER_FILE not in sizes and (corpus := _corpus(search, home)) is not None:
        send_inputs(tracker, corpus, home, search.facts.init_from)
        sent.append(TOKENIZER_FILE)
    journal = folder / JOURNAL_FILE
    if sizes.get(JOURNAL_FILE) != journal.stat().st_size:
        tracker.add_artifact(journal, tags={Tag.JOURNAL: digest})
        sent.append(JOURNAL_FILE)
    url = search.space.engine.storage
    storage = None if url is None else Storage(url).at(folder.name)
    for number in search.end.kept if search.end else ():
        trial = search.trials[number]
        path, run_id = _checkpoint(trial, folder, storage), tracker.run_of(number)
        if path is None or run_id is None:
            continue
        tokens = trial.reports[-1].report.tokens
        if record.trial(run_id).checkpoint_tokens != tokens:
            tracker.keep_checkpoint(number, path, tokens)
            sent.append(f"the checkpoint of trial {number}")
    return tuple(sent)


def _corpus(search: JournaledSearch, home: Home) -> Corpus | None:
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


def _checkpoint(trial: JournaledTrial, folder: Path, storage: Storage | None) -> Path | None:
    """Return the checkpoint of a trial's newest report; None if missing, damaged or replaced."""
    report = trial.reports[-1].report if trial.reports else None
    if report is None or report.checkpoint is None:
        return None
    path = present_state(report.checkpoint, folder / CHECKPOINTS, storage)
    if path is None:
        return None

    from model.checkpoints import checkpoint  # imports torch
    from model.checkpoints.header import recorded_digest
    from model.errors import CheckpointError

    try:
        metadata = checkpoint.read(path)[1]
        is_kept = trial.weights in {None, recorded_digest(path)}
    except CheckpointError:
        return None
    return path if is_kept and metadata["step"] == report.step else None


def _send_end(tracker: Tracker, search: JournaledSearch) -> bool:
    """Send the end of the search.

    Returns:
        True if the store lacked the end.
    """
    end = search.end or SessionEnded("interrupted")  # the driver was killed before its end
    best_run = None if end.best is None else tracker.run_of(end.best)
    stored = tracker.runs.previous
    outcomes = [trial.outcome for trial in search.trials.values()]
    ended = sum(outcome not in {None, INTERRUPTED} for outcome in outcomes)
    trials = max(search.space.search.trials, len(outcomes))
    tags = final_tags(end.status, end.best, end.summary, ended, trials)
    if (
        stored is not None
        and stored.status == end.status
        and end.summary.items() <= stored.metrics.items()
        and tags.items() <= stored.tags.items()
        and best_run in {None, stored.best_run}
    ):
        return False
    tracker.finish(end.status, end.summary, best_run, end.time_ms or None, tags)
    return True


def _publish(home: Home, search: JournaledSearch, name: str, sent: SyncResult) -> tuple[str, ...]:
    """Register the model and write the report, if they are missing or older than what was sent."""
    if search.end is None or search.end.best is None:
        return ()
    from tuner.publish.publish import attach_report, register_model
    from tuner.trained.load_search import load_search  # imports what a search needs

    result, published = load_search(name, home=home), []
    if model := register_model(home, result):
        published.append(model)
    record = Record(home.tracking_uri)
    is_old = record.search(name).tags.get(Tag.REPORT) == "running"  # the driver was killed
    if sent != _NOTHING or is_old or not record.has(result.run_id, REPORT_FILE):
        attach_report(home, result)
        published.append(REPORT_FILE)
    return tuple(published)
