"""`tuner sync`: what the journals of searches hold and the tracking store does not.

A journal has every report; the store may lack some: it was down or its disk full, or the driver was
killed. All that a journal says is told to a tracker, which sends what is missing and nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from model.data_config import DataConfig
from model.spec import TrialSpec
from tuner.corpus_facts import CorpusFacts
from tuner.datasets import dataset_inputs
from tuner.errors import JournalError, JournalInUse, RecordError, StoreError, TunerError
from tuner.home import Home
from tuner.journal import FILE, Event, Journal, report_of
from tuner.messages import listed
from tuner.record import Record
from tuner.runs import Birth, Told, trial_tags
from tuner.store import store_errors
from tuner.tags import JOURNAL_FILE, REPORT_FILE, SPACE_FILE, Tag
from tuner.tracking import Tracker

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


@dataclass
class TrialStory:
    """What a journal says of a trial.

    Attributes:
        birth: how it began.
        told: its reports.
        outcome: how it ended; None if it did not.
        time_ms: of the newest event of it.
    """

    birth: Birth
    time_ms: int
    told: list[Told] = field(default_factory=list)
    outcome: str | None = None


@dataclass(frozen=True)
class SearchStory:
    """What a journal says of a search.

    Attributes:
        space: what it searches, as last edited.
        space_text: the file that the space came from.
        facts: what its specifications know of the data.
        tags: of its parent run.
        trials: by number.
        end: how the last driver ended; None if it did not come to that.
    """

    space: Mapping[str, Any]
    space_text: str | None
    facts: CorpusFacts | None
    tags: Mapping[str, str]
    trials: Mapping[int, TrialStory]
    end: Event | None

    @classmethod
    def of(cls, events: Iterable[Event]) -> SearchStory | None:
        """The story that events tell; None if they do not come to a search."""
        search: Event | None = None
        end: Event | None = None
        environment: dict[str, str] = {}
        trials: dict[int, TrialStory] = {}
        for event in events:
            match event["event"]:
                case "search":
                    search = event
                case "session":
                    environment, end = event["environment"], None
                case "trial":
                    trials[event["number"]] = _begun(event, environment)
                case "end":
                    end = event
                case _ if event.get("number") in trials:
                    _continue(trials[event["number"]], event)
        if search is None:
            return None
        space = search["space"]
        space = json.loads(space) if isinstance(space, str) else space
        facts = CorpusFacts(**search["facts"]) if "facts" in search else None
        return cls(space, search.get("space_text"), facts, _tags(search, space), trials, end)


def catch_up(tracker: Tracker, events: Iterable[Event]) -> None:
    """Tell the tracker of a search that goes on what its journal says; it sends what is missing.

    Trials that have not ended, or were interrupted, are then running.
    """
    story = SearchStory.of(events)
    for number, trial in (story.trials if story else {}).items():
        outcome = trial.outcome or "interrupted"
        status = "running" if outcome == "interrupted" else outcome
        tracker.add_trial(number, trial.birth, trial.told, status, trial.time_ms)


@dataclass(frozen=True)
class Sent:
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


_NOTHING = Sent(0, 0, 0, ())


def sync(home: Home, name: str) -> Sent:
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
    tracker = Tracker(
        home.tracking_uri, home.artifacts, experiment, name, story.tags, resume=True, inputs=inputs
    )
    with closing(tracker):
        for number, trial in story.trials.items():
            status = trial.outcome or "interrupted"
            tracker.add_trial(number, trial.birth, trial.told, status, trial.time_ms)
        tracker.flush()
        files = _send_files(tracker, story, folder)
        has_ended = _send_end(tracker, story)
    endings = tracker.num_endings + has_ended
    sent = Sent(tracker.num_created, tracker.num_metrics, endings, files)
    return replace(sent, files=(*files, *_publish(home, story, name, sent)))


def print_synced(console: Console, home: Home, name: str | None) -> dict[str, Any]:
    """Sync one search, or all of a home, and say what was sent; for --json, the same by name.

    Raises:
        TunerError: if the search, or any of them, cannot be synced.
    """
    sent: dict[str, Any] = {}
    errors: list[str] = []
    for each in [name] if name else _names(home):
        try:
            done = sync(home, each)
        except TunerError as error:
            if name or isinstance(error, StoreError):
                raise
            if isinstance(error, JournalInUse):
                console.print(f"{each}: skipped; {error}", highlight=False, soft_wrap=True)
            else:
                errors.append(str(error))
            continue
        console.print(f"{each}: {done.words}", highlight=False, soft_wrap=True)
        sent[each] = {"runs": done.runs, "metrics": done.metrics, "files": list(done.files)}
    if errors:
        raise TunerError("; ".join(errors))
    if not sent and not name:
        console.print(f"no search in {home.root} has anything to send", soft_wrap=True)
    return {"store": home.tracking_uri, "sent": sent}


def _names(home: Home) -> Sequence[str]:
    return sorted(path.parent.name for path in home.root.glob(f"searches/*/{FILE}"))


# the story ----------------------------------------------------------------------------------


def _begun(event: Event, environment: Mapping[str, str]) -> TrialStory:
    spec = TrialSpec.model_validate_json(event["spec"])
    is_recorded = bool(event.get("recorded"))
    tags = trial_tags(event.get("parent"), event.get("confirms"), recorded=is_recorded)
    return TrialStory(Birth(spec, environment, event["time_ms"], tags), event["time_ms"])


def _continue(trial: TrialStory, event: Event) -> None:
    trial.time_ms = event["time_ms"]
    match event["event"]:
        case "report":
            trial.told.append(Told(report_of(event), event["time_ms"]))
        case "failure":
            trial.outcome = f"failed: {event['reason']}"
        case "outcome":
            trial.outcome = event["outcome"]


def _inputs(story: SearchStory | None) -> list[DatasetInput]:
    if story is None or story.facts is None:
        return []
    return dataset_inputs(DataConfig.model_validate(story.space["data"]), story.facts)


def _tags(search: Event, space: Mapping[str, Any]) -> dict[str, str]:
    settings = space["search"]
    names = ("sampler", "scheduler", "seed")
    return {
        **{name: str(settings[name]) for name in names},
        Tag.METRIC: space["objective"]["metric"],
        **search.get("tags", {}),
    }


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
        if record.trial(run_id).state_tokens != tokens:
            tracker.keep_state(number, path, tokens)
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

    from model import checkpoint  # imports torch

    try:
        about = checkpoint.read(path)[1]
    except checkpoint.CheckpointError:
        return None
    return path if about["step"] == report.step else None


def _send_end(tracker: Tracker, story: SearchStory) -> bool:
    """How the search ended; whether the store did not know."""
    end = story.end or {"status": "interrupted", "summary": {}, "best": None}
    best_run = None if end["best"] is None else tracker.run_of(end["best"])
    found = tracker.runs.found
    if (
        found is not None
        and found.status == end["status"]
        and end["summary"].items() <= found.metrics.items()
        and best_run in {None, found.best_run}
    ):
        return False
    tracker.finish(end["status"], end["summary"], best_run, end.get("time_ms"))
    return True


def _publish(home: Home, story: SearchStory, name: str, sent: Sent) -> tuple[str, ...]:
    """Make of the record what others look at: what is missing, or older than what was sent."""
    if story.end is None or story.end["best"] is None or story.facts is None:
        return ()
    from tuner.past import load_search  # which imports what a search needs
    from tuner.publication import attach_report, register_model

    result, made = load_search(name, home=home), []
    if model := register_model(home, result):
        made.append(model)
    if sent != _NOTHING or not Record(home.tracking_uri).has(result.run_id, REPORT_FILE):
        attach_report(home, result)
        made.append(REPORT_FILE)
    return tuple(made)
