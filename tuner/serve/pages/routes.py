"""The pages: each a template, and the data with which its script begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from tuner.errors import RecordError
from tuner.report.palette import dark_colours, shades
from tuner.serve.api.requests import Asking, Name, Serving
from tuner.serve.pages.frame import Frame, search_path
from tuner.serve.pages.overview import Overview
from tuner.serve.pages.results import Results
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.serve.views import ENDED, SearchView

router = APIRouter(include_in_schema=False)
_NUM_SHADES = 21
_FIRST = 100  # searches that have ended, on the first page


def current_frame(request: Request) -> Frame:
    """Return the frame of the pages."""
    frame: Frame = request.app.state.frame
    return frame


Framing = Annotated[Frame, Depends(current_frame)]


@router.get("/")
def searches(request: Request, user: Asking, service: Serving, frame: Framing) -> Response:
    """Show the queue, and all searches."""
    overview: Overview = request.app.state.overview
    data = {
        "searches": _shown(overview.views(user)),
        "devices": service.machine.number,
    }
    text = json.dumps(data)
    return frame.page(request, "searches.html", user, here="searches", title="Searches", data=text)


@router.get("/searches/{name}")
def search(
    name: Name, request: Request, user: Asking, service: Serving, frame: Framing
) -> Response:
    """Show a search."""
    view = service.view(user, name)
    results: Results = request.app.state.results
    data = {
        "search": view.model_dump(mode="json"),
        "summary": results.summary(name).model_dump(mode="json"),
        "space": _space(service, user, name),
        "shades": _shades(),
    }
    return frame.page(
        request, "search.html", user, here="search", title=name, name=name, data=json.dumps(data)
    )


@router.get("/searches/{name}/trials/{number}")
def trial(
    name: Name,
    number: Annotated[int, Path(ge=0, le=10_000_000)],
    request: Request,
    user: Asking,
    service: Serving,
    frame: Framing,
) -> Response:
    """Show a trial."""
    view = service.view(user, name)
    results: Results = request.app.state.results
    data = {
        "search": view.model_dump(mode="json"),
        "trial": results.trial(name, number).model_dump(mode="json"),
        "shades": _shades(),
    }
    return frame.page(
        request, "trial.html", user, here="search", title=f"Trial {number} of {name}", name=name,
        number=number, path=search_path(name), data=json.dumps(data),
    )  # fmt: skip


@router.get("/static/{version}/{file}")
def static(request: Request, version: str, file: str, frame: Framing) -> Response:
    """Send a script or a style."""
    return frame.files.answer(request, version, file)


def _space(service: Service, user: User, name: str) -> str:
    try:
        return service.space_text(user, name)
    except RecordError:  # it was begun from Python, without a file
        return ""


def _shades() -> list[tuple[str, str]]:
    """Return the colours of trials by how far they trained, light and dark."""
    dark = dark_colours()
    return [(colour, dark[colour]) for colour in shades(_NUM_SHADES)]


def _shown(views: Sequence[SearchView]) -> list[dict[str, object]]:
    """Return the searches that have not ended, and the newest ones; the stream sends all others."""
    rest = [view for view in views if view.state in ENDED]
    shown = {view.name for view in rest[:_FIRST]}
    return [
        view.model_dump(mode="json") for view in views
        if view.state not in ENDED or view.name in shown
    ]  # fmt: skip
