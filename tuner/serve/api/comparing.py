"""The route that compares searches: what differed, what it did, and how they went."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from tuner.journal.fold import Search
from tuner.report.series import ReportData
from tuner.results.result import SearchResult
from tuner.serve.access import Refused
from tuner.serve.api.answers import NOT_MODIFIED
from tuner.serve.api.downsampling import downsampled
from tuner.serve.api.requests import Asking, Giving, Serving
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.summaries.search_comparison import ComparedSearch, SearchComparison

router = APIRouter(tags=["searches"])
_MOST_SEARCHES, _MOST_POINTS = 8, 300


class ComparedView(BaseModel):
    """A search among others.

    Attributes:
        name: name of the search.
        trials_done: number of trials that have ended.
        tokens: training tokens.
        best: value of the best trial.
        best_trial: number of that trial.
        defaults: value of the defaults, at the end of their training.
        mean: mean of the winner's retrainings with fresh seeds; None without them.
        low: low end of the 95 % interval of the mean.
        high: its high end.
        seeds: number of retrainings.
        curve_tokens: tokens that all trials had trained as the best value changed.
        curve_values: best value of a finished trial then.
    """

    name: str
    trials_done: int
    tokens: int
    best: float | None = None
    best_trial: int | None = None
    defaults: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    curve_tokens: list[int] = []
    curve_values: list[float] = []


class ComparisonView(BaseModel):
    """Searches side by side, as `tuner compare` has them.

    Attributes:
        metric: metric of the first search's objective.
        mode: `min` or `max`.
        searches: the searches, as they were named.
        differences: settings that differ → a text for each search.
        verdict: what the results say, one sentence.
    """

    metric: str
    mode: str
    searches: list[ComparedView]
    differences: dict[str, list[str]]
    verdict: str


@router.get("/compare", response_model=ComparisonView, responses=NOT_MODIFIED)
async def compare(
    request: Request,
    user: Asking,
    service: Serving,
    answers: Giving,
    search: Annotated[list[str], Query(min_length=1, max_length=_MOST_SEARCHES)],
) -> Response:
    """Compare two or more searches by their journals."""
    names = list(dict.fromkeys(search))
    if len(names) < 2:
        raise Refused(400, "name two or more searches")
    return await answers.give(request, user, lambda: _view(user, service, names))


def _view(user: User, service: Service, names: list[str]) -> ComparisonView:
    parts, views = [], []
    for name in names:
        service.readable(user, name)

        def made(search: Search, name: str = name) -> tuple[ComparedSearch, ComparedView]:
            return ComparedSearch.of(name, search), _searched(name, search)

        found = service.searches.read(name, made)
        if found is None:
            raise Refused(409, f"{name} has not begun, so there is nothing to compare")
        parts.append(found[0])
        views.append(found[1])
    comparison = SearchComparison.of(tuple(parts))
    return ComparisonView(
        metric=comparison.metric, mode="min" if parts[0].space.objective.sign > 0 else "max",
        searches=views,
        differences={name: list(texts) for name, texts in comparison.differing.items()},
        verdict=comparison.verdict,
    )  # fmt: skip


def _searched(name: str, search: Search) -> ComparedView:
    """Return a search with its curve of the best value so far."""
    part, board = ComparedSearch.of(name, search), search.board
    view = ComparedView(
        name=name, trials_done=part.ended, tokens=part.tokens, best=part.best,
        best_trial=None if board.best is None else board.best.number,
    )  # fmt: skip
    if part.winner is not None:
        winner = part.winner
        values = {"mean": winner.mean, "low": winner.low, "high": winner.high}
        view = view.model_copy(update={**values, "seeds": winner.count})
    result = SearchResult.of(name, search, run_id="", experiment_id="", run_ids={})
    if result is None:
        return view
    series = ReportData(result)
    best = series.best_so_far
    if best is not None:
        kept = downsampled(list(zip(best.tokens, best.values, strict=True)), _MOST_POINTS)
        curve = {"curve_tokens": [t for t, _ in kept], "curve_values": [v for _, v in kept]}
        view = view.model_copy(update=curve)
    return view.model_copy(update={"defaults": series.defaults})
