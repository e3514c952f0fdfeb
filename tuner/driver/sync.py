"""`tuner sync`: what the journals of searches hold and the tracking store does not.

A journal has every report; the store may lack some: it was down or its disk full, or the driver was
killed. All that a journal says is told to a tracker, which sends what is missing and nothing twice.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.driver.catch_up import SearchStory, TrialStory, _inputs
from tuner.errors import JournalError, RecordError
from tuner.formatting import listed
from tuner.home import Home
from tuner.journal.journal import FILE, Journal
from tuner.tracking.record import Record
from tuner.tracking.runs import RunSettings
from tuner.tracking.store import store_errors
from tuner.tracking.tags import JOURNAL_FILE, REPORT_FILE, SPACE_FILE
from tuner.tracking.tracker import Tracker

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class SyncResult:
    """What was missing in the store and is no longer.

    Attributes:
        runs: of trials.
        metrics: values of all curves.
        endings: how trials, or the search, ended.
        files: names of what is attached to the search, and its model.
    """

    runs: int
    metrics: int
    endings: int
    files: tuple[str, ...]

    @property
    def words(self) -> str:
        """`2 runs, 30 metrics and best`."""
        counts = {"run": self.runs, "metric": self.metrics, "ending": self.endings}
        words = [f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n]
        return listed([*words, *self.files], "and") or "nothing was missing"


_NOTHING = SyncResult(0, 0, 0, ())


def sync(home: Home, name: str) -> SyncResult:
    """Send what a search's journal holds and the store does not.

    Args:
        home: where the search lives.
        name: of the search.

    Returns:
        What it was.

    Raises:
        JournalInUse: if the search is being run.
        JournalError: if its journal is damaged.
        RecordError: if there is no such journal.
        StoreError: if the store does not take it.
    """
    folder = home.search(name)
    if not (folder / FILE).is_file():
        raise RecordError(f"there is no {folder / FILE}; 'tuner list' lists the recorded searches")
    with closing(Journal.open(folder)) as journal:
        try:
            story = SearchStory.of(journal.events)
            inputs = _inputs(story)
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(
                f"{journal.path} is of another version of tuner; sync it with that one"
            ) from error
    if story is None:
        return _NOTHING
    experiment = story.space["name"]
    settings = RunSettings(
        home.tracking_uri, home.artifacts, experiment, name, story.tags, resume=True, inputs=inputs
    )
    tracker = Tracker(settings)
    with closing(tracker):
        for number, trial in story.trials.items():
            status = trial.outcome or "interrupted"
            tracker.add_trial(number, trial.birth, trial.told, status, trial.time_ms)
        tracker.flush()
        files = _send_files(tracker, story, folder)
        has_ended = _send_end(tracker, story)
    endings = tracker.num_endings + has_ended
    sent = SyncResult(tracker.num_created, tracker.num_metrics, endings, files)
    return replace(sent, files=(*files, *_publish(home, story, name, sent)))


# the story ----------------------------------------------------------------------------------


# what belongs to the search ------------------------------------------------------------------


def _send_files(tracker: Tracker, story: SearchStory, folder: Path) -> tuple[str, ...]:
    """The space, the journal, and the states of the best trials if they still lie there."""
    record = tracker.runs.record
    with store_errors(tracker.uri):
        files = record.client.list_artifacts(tracker.run_id)
    stored = {file.path: file.file_size for file in files}
    sent = []
    if story.space_text and SPACE_FILE not in stored:
        tracker.add_text(story.space_text, SPACE_FILE)
        sent.append(SPACE_FILE)
    journal = folder / FILE
    if stored.get(JOURNAL_FILE) != journal.stat().st_size:
        tracker.add_artifact(journal)
        sent.append(JOURNAL_FILE)
    for number in story.end.get("kept", ()) if story.end else ():
        path, run_id = _checkpoint(story.trials[number], folder), tracker.run_of(number)
        if path is None or run_id is None:
            continue
        tokens = story.trials[number].told[-1].report.tokens
        if record.trial(run_id).checkpoint_tokens != tokens:
            tracker.keep_checkpoint(number, path, tokens)
            sent.append(f"the state of trial {number}")
    return tuple(sent)


def _checkpoint(trial: TrialStory, folder: Path) -> Path | None:
    """The state of a trial at its newest report, if it is there and whole."""
    report = trial.told[-1].report if trial.told else None
    if report is None or report.checkpoint is None:
        return None
    written = Path(report.checkpoint)
    here = folder.joinpath("checkpoints", *written.parts[-2:])  # the home may have moved
    path = written if written.is_file() else here
    if not path.is_file():
        return None

    from model.checkpoints import checkpoint  # imports torch
    from model.errors import CheckpointError

    try:
        about = checkpoint.read(path)[1]
    except CheckpointError:
        return None
    return path if about["step"] == report.step else None


def _send_end(tracker: Tracker, story: SearchStory) -> bool:
    """How the search ended; whether the store did not know."""
    end = story.end or {"status": "interrupted", "summary": {}, "best": None}
    best_run = None if end["best"] is None else tracker.run_of(end["best"])
    found = tracker.runs.previous
    if (
        found is not None
        and found.status == end["status"]
        and end["summary"].items() <= found.metrics.items()
        and best_run in {None, found.best_run}
    ):
        return False
    tracker.finish(end["status"], end["summary"], best_run, end.get("time_ms"))
    return True


def _publish(home: Home, story: SearchStory, name: str, sent: SyncResult) -> tuple[str, ...]:
    """Make of the record what others look at: what is missing, or older than what was sent."""
    if story.end is None or story.end["best"] is None or story.facts is None:
        return ()
    from tuner.publish.publish import attach_report, register_model
    from tuner.trained.load_search import load_search  # which imports what a search needs

    result, made = load_search(name, home=home), []
    if model := register_model(home, result):
        made.append(model)
    if sent != _NOTHING or not Record(home.tracking_uri).has(result.run_id, REPORT_FILE):
        attach_report(home, result)
        made.append(REPORT_FILE)
    return tuple(made)
