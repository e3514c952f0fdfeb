"""Results of searches as far as they are, for the report's own texts, tables and pictures."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict, defaultdict
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from model.engine.report import METRICS, SOME_METRICS, Report
from model.spec.hyperparameters import SYMBOL_TABLE
from tuner.conductor.trial import Trial
from tuner.errors import RecordError
from tuner.journal.fold import Search
from tuner.results.result import SearchResult
from tuner.results.sentences import summary_sentences
from tuner.serve.curves import curves_of
from tuner.serve.pages.result_views import (
    ParameterView,
    PicturesView,
    PictureView,
    SummaryView,
    TileView,
    TrialReport,
    TrialRow,
    TrialsView,
    TrialView,
    ValuesView,
    WinnersView,
)
from tuner.serve.searches import HomeSearches
from tuner.space.parameter import symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import short_hash

if TYPE_CHECKING:  # slow to import
    from tuner.report.series import ReportData

_MOST_KEPT = 8  # searches whose pictures are kept
_PICTURE_SECONDS = 20.0  # for which the pictures of a search that grows are given again
_REST = 9.0  # times as long as it took to make the answer of a search that grows, it is given again
_SIZES = (
    "d_model", "n_layers", "n_heads", "context_length", "d_ff", "num_parameters"
)  # fmt: skip

_METRICS = [name for name in (*METRICS, *SOME_METRICS) if name != "tokens"]


@dataclass(frozen=True)
class _Pictures:
    at: float
    view: PicturesView


@dataclass(frozen=True)
class _Summary:
    at: float
    seconds: float
    view: SummaryView


class Results:
    """Results of searches that may be growing: they are looked at while nothing is added.

    Pictures take seconds, so they are drawn of a copy, at most once in a while.

    Args:
        searches: the searches of the home.
    """

    def __init__(self, searches: HomeSearches) -> None:
        self._searches = searches
        self._pictures: OrderedDict[str, _Pictures] = OrderedDict()
        self._keeping = threading.Lock()
        self._summaries: WeakKeyDictionary[Search, _Summary] = WeakKeyDictionary()
        # of each search; who waits for pictures that are being drawn must not hold a thread
        self.drawing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def summary(self, name: str) -> SummaryView:
        """Return the answer of a search so far."""
        view = self._searches.read(name, lambda search: self._summary(search, name))
        return view or SummaryView(headline="The search has not begun")

    def _summary(self, search: Search, name: str) -> SummaryView:
        kept = self._summaries.get(search)
        if kept is not None and (
            kept.view.num_events == search.num_events
            or time.monotonic() - kept.at < _REST * kept.seconds
        ):
            return kept.view
        begun = time.monotonic()
        view, now = _answer(search, name), time.monotonic()
        self._summaries[search] = _Summary(now, now - begun, view)
        return view

    def trials(self, name: str, since: int = 0) -> TrialsView:
        """Return the table of trials, or its rows that have changed since a time."""
        view = self._searches.read(name, lambda search: _table(search, name, since))
        return view or TrialsView(heads=[], are_numbers=[], rows=[], newest=0)

    def pictures(self, name: str) -> PicturesView:
        """Return the pictures of a search; whoever calls holds its lock in `drawing`."""
        kept = self._pictures.get(name)
        events = self._searches.read(name, lambda search: search.num_events)
        if kept is None or (
            kept.view.num_events != events and time.monotonic() - kept.at > _PICTURE_SECONDS
        ):
            found = self._searches.read(name, lambda search: _copied(search, name))
            result, events = found or (None, 0)
            if result is None:
                return PicturesView(sections={}, num_events=events)
            kept = _Pictures(time.monotonic(), _drawn(result, events))
        with self._keeping:  # pictures of other searches are drawn meanwhile
            self._pictures[name] = kept
            self._pictures.move_to_end(name)
            while len(self._pictures) > _MOST_KEPT:
                self._pictures.popitem(last=False)
        return kept.view

    def trial(self, name: str, number: int) -> TrialView:
        """Return a trial of a search.

        Raises:
            RecordError: if there is none of this number.
        """
        view = self._searches.read(name, lambda search: _trial_view(search, name, number))
        if view is None:
            raise RecordError(f"{name} has no trial {number}")
        return view


def _result(search: Search, name: str) -> SearchResult | None:
    return SearchResult.of(name, search, run_id="", experiment_id="", run_ids={})


def _answer(search: Search, name: str) -> SummaryView:
    from tuner.report import contents
    from tuner.report.series import is_wide, window

    result = _result(search, name)
    if result is None:
        return SummaryView(headline="No trial has reported yet", num_events=search.num_events)
    series = _series(result)
    values = [v for curve in curves_of(search) for v in curve.values if v is not None]
    ends = window(values, series.sign)
    winners = contents.winners(series)
    return SummaryView(
        headline=contents.headline(series),
        about=contents.about(result),
        tiles=[TileView(**asdict(tile)) for tile in contents.tiles(series)],
        sentences=summary_sentences(result),
        advice=result.advice,
        winners=None if winners is None else WinnersView.model_validate(winners),
        environment=contents.environment(result),
        metric=result.metric,
        is_lower_better=series.sign > 0,
        best=result.best.number,
        defaults=series.defaults_number,
        num_places=max((trial.num_places for trial in result.trials[:1]), default=0),
        values=None if ends is None else ValuesView(
            low=ends[0], high=ends[1], is_log=is_wide(*ends)
        ),
        num_events=search.num_events,
    )  # fmt: skip


def _table(search: Search, name: str, since: int) -> TrialsView:
    from tuner.report.contents import table

    result = _result(search, name)
    if result is None:
        return TrialsView(heads=[], are_numbers=[], rows=[], newest=search.newest_ms)
    changed = {number for number, each in search.trials.items() if each.changed_ms >= since}
    heads, are_numbers, rows = table(_series(result), changed)
    return TrialsView(
        heads=heads[:-1],  # MLflow runs are not known to the journal
        are_numbers=are_numbers[:-1],
        rows=[
            TrialRow(
                number=row.number, ending=row.ending, is_winner=row.is_winner,
                texts=[cell.text for cell in row.cells[:-1]],
                keys=[_finite(cell.key) for cell in row.cells[:-1]],
            )
            for row in rows
        ],
        newest=search.newest_ms,
    )  # fmt: skip


def _copied(search: Search, name: str) -> tuple[SearchResult | None, int]:
    """Return the result of a search that may grow afterwards, and its number of events."""
    result = _result(search, name)
    if result is None:
        return None, search.num_events
    copies = {}
    for trial in (*result.trials, *result.branches, *result.confirming, result.best):
        if trial.number not in copies:
            copies[trial.number] = copy(trial)
            copies[trial.number].reports = list(trial.reports)
            copies[trial.number].times = list(trial.times)

    def those(trials: list[Trial]) -> list[Trial]:
        return [copies[trial.number] for trial in trials]

    copied = replace(
        result, trials=those(result.trials), branches=those(result.branches),
        confirming=those(result.confirming), best=copies[result.best.number],
    )  # fmt: skip
    return copied, search.num_events


def _series(result: SearchResult) -> ReportData:
    from tuner.report.series import ReportData

    return ReportData(result)


def _drawn(result: SearchResult, events: int) -> PicturesView:
    """Draw all pictures but the curves, which pages draw themselves as reports come."""
    from tuner.report import slices
    from tuner.report.page import sections_of
    from tuner.report.palette import dark_colours
    from tuner.report.shares import shares_of

    series = _series(result)
    compared = shares_of(series)
    sections = sections_of(series, compared)
    best = result.best.number if len(result.space.objectives) == 1 else None
    return PicturesView(
        sections={
            section: [
                PictureView(
                    key=picture.key, title=picture.title, caption=picture.caption,
                    height=picture.height, min_width=picture.min_width,
                    figure=picture.figure.to_plotly_json(),
                )
                for picture in pictures if picture.key != "curves"
            ]
            for section, pictures in sections.items()
        },
        slices_caption=slices.caption(series, best) if sections["slices"] else "",
        no_shares=compared.reason,
        dark=dark_colours(),
        num_events=events,
    )  # fmt: skip


def _trial_view(search: Search, name: str, number_: int) -> TrialView | None:
    from tuner.report.contents import outcome_text
    from tuner.report.series import ending

    journaled = search.trials.get(number_)
    if journaled is None:
        return None
    trial, board, spec = journaled.trial, search.board, journaled.trial.spec
    value = trial.objective(board.metric)
    times = trial.times if len(trial.times) == len(trial.reports) else [None] * len(trial.reports)
    searched, others = _parameters(search.space, trial)
    best = board.best if search.end is None or search.end.best is None else None
    best_number = best.number if best else search.end.best if search.end else None
    reports = [_report(trial, *pair) for pair in zip(trial.reports, times, strict=True)]
    facts = {
        "specification": short_hash(spec.hash), "seed": str(spec.seed),
        "data": short_hash(spec.data_fingerprint),
        "tokenizer": short_hash(spec.tokenizer_fingerprint),
        "weights": short_hash(journaled.weights) if journaled.weights else "",
        **{key: str(text) for key, text in journaled.environment.items()},
    }  # fmt: skip
    return TrialView(
        number=number_, search=name, outcome=outcome_text(trial, is_on=search.end is None),
        ending=ending(trial) if trial.outcome else "", is_best=number_ == best_number,
        metric=board.metric, value=_finite(value), parent=trial.parent, confirms=trial.confirms,
        place=trial.place, num_places=trial.num_places, tokens=trial.tokens,
        budget_tokens=spec.budget_tokens, searched=searched, others=others,
        facts=[(key, text) for key, text in facts.items() if text],
        reports=reports,
        metrics=[name for name in _METRICS if any(name in each.metrics for each in reports)],
        numbers=sorted(search.trials), has_weights=journaled.weights is not None,
        can_write=not spec.architecture.n_encoder_layers, num_events=search.num_events,
    )  # fmt: skip


def _report(trial: Trial, report: Report, at: int | None) -> TrialReport:
    metrics = {name: _finite(value) for name, value in report.metrics().items()}
    return TrialReport(step=report.step, tokens=report.tokens, time=at, metrics=metrics)


def _parameters(
    space: SearchSpace, trial: Trial
) -> tuple[list[ParameterView], list[ParameterView]]:
    """Return the searched hyperparameters that a trial has, and all its other ones."""
    drawn = {p.name for p in space.searched if p.label in trial.draw}
    names = [*SYMBOL_TABLE, *_SIZES]

    def view(name: str) -> ParameterView:
        value = trial.value_of(name)
        text = "–" if value is None else trial.text_of(name)
        if name == "num_parameters":
            text = f"{value:,}"
        own = name if symbol(name) != name else ""
        span = space.range_text(name) if name in drawn else ""
        return ParameterView(symbol=symbol(name), name=own, value=text, range=span)

    searched = [view(name) for name in space.searched_names if name in drawn]
    return searched, [view(name) for name in names if name not in drawn]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
