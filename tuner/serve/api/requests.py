"""Who asks, whom, and how requests are refused: what every route shares."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from tuner.serve.access import Access
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.serve.views import MistakeView, Problem


def current_user(request: Request) -> User:
    """Return the user of a request; raise Refused if its token is none."""
    access: Access = request.app.state.access
    address = request.client.host if request.client else ""
    user = access.identify(request.headers.get("authorization"), address)
    request.state.user = user.name
    return user


def current_service(request: Request) -> Service:
    """Return the service."""
    service: Service = request.app.state.service
    return service


Asking = Annotated[User, Depends(current_user)]
Serving = Annotated[Service, Depends(current_service)]
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be understood"},
    401: {"model": Problem, "description": "The token is missing or not valid"},
    403: {"model": Problem, "description": "The user may not"},
    404: {"model": Problem, "description": "There is no such search"},
    409: {"model": Problem, "description": "The search is in another state"},
    413: {"model": Problem, "description": "The body is too large"},
    422: {"model": list[MistakeView], "description": "The request has mistakes"},
    429: {"model": Problem, "description": "Too many bad tokens"},
    503: {"model": Problem, "description": "The database or the home cannot be used at present"},
}
