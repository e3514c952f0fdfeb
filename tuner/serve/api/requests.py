"""Who asks, whom, and how requests are refused: what every route shares."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Request
from starlette.concurrency import run_in_threadpool as in_thread

from tuner.serve.access import Access
from tuner.serve.api.answers import Answers
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.serve.views import MistakeView, Problem

LOGIN_COOKIE = "tuner-login"
PLEDGE_HEADER = "x-csrf-token"
_LOOKING = ("GET", "HEAD", "OPTIONS")


async def current_user(request: Request) -> User:
    """Return the user of a request; raise Refused if its token or its login is none."""
    access: Access = request.app.state.access
    authorization, secret = request.headers.get("authorization"), request.cookies.get(LOGIN_COOKIE)
    if authorization is None and secret is not None:
        pledge = request.headers.get(PLEDGE_HEADER, "")
        given = None if request.method in _LOOKING else pledge
        user = await in_thread(access.logged_in, secret, given)
    elif access.is_fresh:  # a thread for each request would cost more than the request
        user = access.identify(authorization, address_of(request))
    else:
        user = await in_thread(access.identify, authorization, address_of(request))
    request.state.user = user.name
    return user


def address_of(request: Request) -> str:
    """Return the address of the client."""
    return request.client.host if request.client else ""


async def current_service(request: Request) -> Service:
    """Return the service."""
    service: Service = request.app.state.service
    return service


async def current_answers(request: Request) -> Answers:
    """Return the answers that are kept."""
    answers: Answers = request.app.state.answers
    return answers


YAML: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A search space, as tuner search --space takes it.",
        "content": {"application/yaml": {"schema": {"type": "string"}}},
    }
}
Name = Annotated[str, Path(description="Name of the search", min_length=1, max_length=100)]
Class = Literal["low", "normal", "high", "urgent"]
Seen = Literal["private", "team", "public"]
Asking = Annotated[User, Depends(current_user)]
Serving = Annotated[Service, Depends(current_service)]
Giving = Annotated[Answers, Depends(current_answers)]
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be understood"},
    401: {"model": Problem, "description": "The token is missing or not valid"},
    403: {"model": Problem, "description": "The user may not"},
    404: {"model": Problem, "description": "There is no such search"},
    409: {"model": Problem, "description": "The search is in another state"},
    413: {"model": Problem, "description": "The body is too large"},
    422: {"model": list[MistakeView], "description": "The request has mistakes"},
    429: {"model": Problem, "description": "Too many bad tokens, or operations under way"},
    503: {"model": Problem, "description": "The database or the home cannot be used at present"},
}
