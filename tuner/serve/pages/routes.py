"""The pages: each a template, and the data with which its script begins."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from tuner.serve.api.requests import Asking, Serving
from tuner.serve.api.routes import listed
from tuner.serve.pages.frame import Frame

router = APIRouter(include_in_schema=False)
_FIRST = 100  # searches that the first page shows


def current_frame(request: Request) -> Frame:
    """Return the frame of the pages."""
    frame: Frame = request.app.state.frame
    return frame


Framing = Annotated[Frame, Depends(current_frame)]


@router.get("/")
def searches(request: Request, user: Asking, service: Serving, frame: Framing) -> Response:
    """Show the queue, and all searches."""
    first = listed(user, service, _FIRST).model_dump(mode="json")
    data = json.dumps({**first, "devices": service.machine.number})
    return frame.page(request, "searches.html", user, here="searches", title="Searches", data=data)


@router.get("/static/{version}/{file}")
def static(request: Request, version: str, file: str, frame: Framing) -> Response:
    """Send a script or a style."""
    return frame.files.answer(request, version, file)
