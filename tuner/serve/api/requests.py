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


async def current_user(request: Request) -> User:
    """Return the user of a request; raise Refused if its token is none."""
    access: Access = request.app.state.access
    given = request.headers.get("authorization"), request.client.host if request.client else ""
    # a thread for each request would cost more than the request
    user = access.identify(*given) if access.is_fresh else await in_thread(access.identify, *given)
    request.state.user = user.name
    return user


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
