"""Routes of what pages show: answers, tables, pictures and trials, and the changes of all searches.

They are part of the API, so that a script can have what a page has.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tuner.serve.api.requests import Asking, Name, Serving
from tuner.serve.pages.overview import Overview, changes
from tuner.serve.pages.result_views import PicturesView, SummaryView, TrialsView, TrialView
from tuner.serve.pages.results import Results

router = APIRouter(tags=["results"])
_EVENTS = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {name: {"type": "string"} for name in ("event", "data")},
}


async def current_results(request: Request) -> Results:
    """Return the results of the searches."""
    return cast(Results, request.app.state.results)


Having = Annotated[Results, Depends(current_results)]


@router.get(
    "/events", response_class=StreamingResponse, tags=["searches"],
    responses={200: {"content": {"text/event-stream": {"schema": _EVENTS}}}},
)  # fmt: skip
async def events(request: Request, user: Asking) -> Response:
    """Stream the searches that change, all of them first."""
    overview: Overview = request.app.state.overview
    return StreamingResponse(
        changes(lambda: overview.views(user), asyncio.sleep), media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )  # fmt: skip


@router.get("/searches/{name}/summary")
def summary(name: Name, user: Asking, service: Serving, results: Having) -> SummaryView:
    """Return the answer of a search so far: in one line, in numbers, in sentences."""
    service.readable(user, name)
    return results.summary(name)


@router.get("/searches/{name}/trials")
def trials(
    name: Name,
    user: Asking,
    service: Serving,
    results: Having,
    since: Annotated[int, Query(ge=0, le=2**53, description="milliseconds, from `newest`")] = 0,
) -> TrialsView:
    """Return the table of trials of a search, or its rows that have changed since a time."""
    service.readable(user, name)
    return results.trials(name, since)


@router.get("/searches/{name}/trials/{number}")
def trial(
    name: Name,
    number: Annotated[int, Path(ge=0, le=10_000_000)],
    user: Asking,
    service: Serving,
    results: Having,
) -> TrialView:
    """Return a trial: its hyperparameters, outcome and reports."""
    service.readable(user, name)
    return results.trial(name, number)


@router.get("/searches/{name}/pictures")
async def pictures(name: Name, user: Asking, service: Serving, results: Having) -> PicturesView:
    """Return the pictures of the report of a search, but for the curves, as figures of Plotly."""
    await run_in_threadpool(service.readable, user, name)
    async with results.drawing[name]:
        return await run_in_threadpool(results.pictures, name)
