"""Reads from the journal what a tracking store must know of a search, and sends it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model.spec.data import DataConfig
from model.spec.trial import TrialSpec
from tuner.journal.events import Event, report_of
from tuner.space.data_facts import DataFacts
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.runs import RunStart, TimedReport, trial_tags
from tuner.tracking.tags import Tag
from tuner.tracking.tracker import Tracker

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

    birth: RunStart
    time_ms: int
    told: list[TimedReport] = field(default_factory=list)
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
    facts: DataFacts | None
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
        facts = DataFacts(**search["facts"]) if "facts" in search else None
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


def _begun(event: Event, environment: Mapping[str, str]) -> TrialStory:
    spec = TrialSpec.model_validate_json(event["spec"])
    is_recorded = bool(event.get("recorded"))
    tags = trial_tags(event.get("parent"), event.get("confirms"), recorded=is_recorded)
    return TrialStory(RunStart(spec, environment, event["time_ms"], tags), event["time_ms"])


def _continue(trial: TrialStory, event: Event) -> None:
    trial.time_ms = event["time_ms"]
    match event["event"]:
        case "report":
            trial.told.append(TimedReport(report_of(event), event["time_ms"]))
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
