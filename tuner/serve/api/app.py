"""The application: the API over a `Service`, its errors as answers, health."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import tuner
from model.errors import ModelError
from tuner.errors import JournalInUse, RecordError, SpaceError, TunerError
from tuner.serve.access import Access, Refused
from tuner.serve.api import comparing, design, machines, operations, people, routes
from tuner.serve.api.answers import Answers
from tuner.serve.api.guard import Guard
from tuner.serve.api.requests import REFUSALS, Asking, Serving
from tuner.serve.api.uploads import MOST_UPLOAD_BYTES
from tuner.serve.dispatcher import FOLDER
from tuner.serve.machine import LoadMeter
from tuner.serve.metrics import exposition
from tuner.serve.operations.operations import Operations
from tuner.serve.pages import design_routes, login, result_routes
from tuner.serve.pages import routes as pages
from tuner.serve.pages.frame import Frame, wants_page
from tuner.serve.pages.overview import Overview
from tuner.serve.pages.results import Results
from tuner.serve.service import Conflict, Service
from tuner.serve.views import ConflictView, MistakeView

API = "/api/v1"
_SILENT_SECONDS = 30.0  # of the queue, after which the server is not ready


def make_app(
    service: Service,
    access: Access,
    *,
    hosts: Collection[str] | None = None,
    log: Callable[[str], None] | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        service: the searches.
        access: the users.
        hosts: names that the header `Host` may have; None for any.
        log: function that takes a line of the access log.
    """
    app = FastAPI(
        title="tuner", version=tuner.__version__, docs_url=None, redoc_url=None,
        openapi_url=f"{API}/openapi.json", redirect_slashes=False,
        description="Searches that share the machines of a team.",
    )  # fmt: skip
    app.state.service, app.state.access, app.state.frame = service, access, Frame()
    app.state.overview, app.state.results = Overview(service), Results(service.searches)
    app.state.answers = Answers(
        service.searches.fresh_seconds, lambda: service.database.num_changes
    )
    app.state.meter = LoadMeter(service.home.root)
    app.state.operations = Operations(service.home, service.home.root / FOLDER)
    app.add_middleware(Guard, hosts=hosts, log=log, limits={f"{API}/uploads": MOST_UPLOAD_BYTES})
    for part in (routes, result_routes, operations, design, comparing, machines, people):
        app.include_router(part.router, prefix=API, responses=REFUSALS)
    app.add_api_route("/healthz", _health, tags=["health"])
    app.add_api_route("/readyz", _ready, tags=["health"], responses={503: REFUSALS[503]})
    app.add_api_route(
        "/metrics", _metrics, tags=["health"], response_class=Response, responses={
            **REFUSALS, 200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}
        },
    )  # fmt: skip
    for each in (pages.router, design_routes.router, login.router):
        app.include_router(each)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, _for_people(handler))
    return app


def _health() -> dict[str, str]:
    """Say that the server is alive."""
    return {"status": "ok", "version": tuner.__version__}


def _ready(service: Serving, response: Response) -> dict[str, str]:
    """Say whether the queue runs."""
    dispatcher = service.dispatcher
    problem = dispatcher.problem
    if problem is None and time.monotonic() - dispatcher.ticked > _SILENT_SECONDS:
        problem = "the queue does not move"
    if problem is None:
        return {"message": "ready"}
    response.status_code = 503
    return {"message": problem}


def _metrics(user: Asking, service: Serving) -> Response:
    """Return metrics of the searches and the queue for Prometheus."""
    return Response(exposition(service, user), media_type=CONTENT_TYPE_LATEST)


# errors -------------------------------------------------------------------------------------------


def _for_people(handler: Callable[[Request, Any], JSONResponse]) -> Callable[..., Response]:
    """Return a handler that answers a person with a page."""

    def answer(request: Request, error: Exception) -> Response:
        response = handler(request, error)
        if not wants_page(request):
            return response
        frame: Frame = request.app.state.frame
        said = json.loads(bytes(response.body))
        message = said["message"] if isinstance(said, dict) else said[0]["message"]
        return frame.refusal(request, response.status_code, message)

    return answer


def _mistakes(request: Request, error: SpaceError) -> JSONResponse:
    views = [MistakeView(line=m.line, column=m.column, message=m.message) for m in error.mistakes]
    return JSONResponse([view.model_dump() for view in views], 422)


def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    def message(item: Any) -> str:
        return f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}"

    views = [MistakeView(line=0, column=0, message=message(item)) for item in error.errors()]
    return JSONResponse([view.model_dump() for view in views], 422)


def _conflict(request: Request, error: Conflict) -> JSONResponse:
    if error.earlier is None:
        return JSONResponse({"message": str(error)}, 409)
    view = ConflictView(**error.earlier.model_dump(), message=str(error))
    return JSONResponse(view.model_dump(mode="json"), 409)


def _refused(request: Request, error: Refused) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    return JSONResponse({"message": str(error)}, error.status, headers)


def _http(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"message": str(error.detail)}, error.status_code, error.headers)


def _disk(request: Request, error: OSError) -> JSONResponse:
    return JSONResponse({"message": f"the home cannot be used: {error.strerror or error}"}, 503)


def _answer(status: int) -> Callable[[Request, Exception], JSONResponse]:
    return lambda request, error: JSONResponse({"message": str(error)}, status)


_HANDLERS: dict[type[Exception], Any] = {
    SpaceError: _mistakes,
    RequestValidationError: _invalid,
    Conflict: _conflict,
    Refused: _refused,
    RecordError: _answer(404),
    JournalInUse: _answer(409),
    ClientDisconnect: _answer(413),
    HTTPException: _http,
    TunerError: _answer(503),
    ModelError: _answer(503),
    OSError: _disk,
}
