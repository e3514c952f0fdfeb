"""Routes of operations: reports, exports, checkpoints, replays, texts, tables of a search."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, cast

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from tuner.errors import RecordError
from tuner.serve.access import Refused
from tuner.serve.api.requests import Asking, Name, Serving
from tuner.serve.operations.operations import Operation, Operations
from tuner.serve.operations.wishes import ReportWish, Wish
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.serve.views import FileView
from tuner.texts.formatting import shown

router = APIRouter(tags=["operations"])
_PATIENCE_SECONDS, _POLL_SECONDS = 120.0, 0.2
_MOST_LISTED = 50
# A report has scripts of its own: its page gets no origin, so they reach nothing of this server.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'"
)

Number = Annotated[str, Path(description="Id of the operation", min_length=1, max_length=40)]


class OperationView(BaseModel):
    """An operation: a command that the server runs for a user, in a process of its own.

    Attributes:
        id: id of the operation.
        kind: `report`, `export`, `checkpoint`, `replay`, `generate`, `show` or `compare`.
        search: name of the search.
        trial: number of the trial; None for the best, or the whole search.
        user: who asked.
        state: `waiting`, `running`, `done`, `failed`, or `interrupted`.
        asked: when it was asked for, in seconds since the epoch.
        ended: when it ended.
        exit_status: exit status of the command; of a replay 1 says that it differs.
        progress: what it says of its progress.
        problem: why it failed.
        result: what the command prints with --json: `verdict` of a replay, `texts` of generate.
        files: its files, below /operations/ID/files/.
    """

    id: str
    kind: str
    search: str
    trial: int | None
    user: str
    state: str
    asked: float
    ended: float | None = None
    exit_status: int | None = None
    progress: str = ""
    problem: str | None = None
    result: dict[str, Any] | None = None
    files: list[FileView] = Field(default_factory=list)

    @classmethod
    def of(cls, operation: Operation) -> OperationView:
        """Return what the API says of an operation."""
        begun, problem = operation.begun, None
        if operation.state == "failed":
            problem = operation.progress or "it ended without a word"
            problem = problem.removeprefix(f"tuner {begun.kind}: ")
        elif operation.state == "interrupted":
            problem = "it was cancelled, or its process was killed; ask for it again"
        result = operation.result
        if result is not None:  # paths are of the server
            result = {k: v for k, v in result.items() if k not in ("report", "folder")}
        return cls(
            id=begun.id, kind=begun.kind, search=begun.search, trial=begun.trial, user=begun.user,
            state=operation.state, asked=begun.asked, ended=operation.ended,
            exit_status=operation.status, problem=problem, result=result,
            progress="" if operation.is_over else operation.progress,
            files=[FileView(name=name, bytes=size) for name, size in operation.files.items()],
        )  # fmt: skip


async def current_operations(request: Request) -> Operations:
    """Return the operations."""
    return cast(Operations, request.app.state.operations)


Doing = Annotated[Operations, Depends(current_operations)]


@router.post("/searches/{name}/operations", status_code=202)
def begin(
    name: Name, wish: Annotated[Wish, Body()], user: Asking, service: Serving, doing: Doing
) -> OperationView:
    """Begin an operation; an equal one of the same journal is not done again."""
    return OperationView.of(_begun(user, service, doing, name, wish))


@router.get("/operations")
def list_operations(
    user: Asking,
    service: Serving,
    doing: Doing,
    search: Annotated[str | None, Query(max_length=100)] = None,
) -> list[OperationView]:
    """List the newest operations, those of one search or all."""
    views: list[OperationView] = []
    for each in doing.all():
        is_of = search is None or search in (each.begun.search, *each.begun.others)
        if is_of and _may_read(user, service, each):
            views.append(OperationView.of(each))
        if len(views) == _MOST_LISTED:
            break
    return views


@router.get("/operations/{number}")
def show_operation(number: Number, user: Asking, service: Serving, doing: Doing) -> OperationView:
    """Show an operation."""
    return OperationView.of(_readable(user, service, doing, number))


@router.post("/operations/{number}/cancel")
def cancel(number: Number, user: Asking, service: Serving, doing: Doing) -> OperationView:
    """End an operation that one has asked for."""
    operation = _readable(user, service, doing, number)
    if operation.begun.user != user.name and user.role != "admin":
        raise Refused(403, f"{operation.begun.user} has asked for it, not {user.name}")
    doing.cancel(operation)
    return OperationView.of(_readable(user, service, doing, number))


@router.get(
    "/operations/{number}/output", response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)  # fmt: skip
def show_output(number: Number, user: Asking, service: Serving, doing: Doing) -> Response:
    """Return what the command has printed."""
    operation = _readable(user, service, doing, number)
    return PlainTextResponse(doing.output(operation.begun.id))


@router.get(
    "/operations/{number}/files/{file}", response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
)  # fmt: skip
def download_file(
    number: Number,
    file: Annotated[str, Path(min_length=1, max_length=200)],
    user: Asking,
    service: Serving,
    doing: Doing,
) -> Response:
    """Download a file of an operation."""
    operation = _readable(user, service, doing, number)
    path = doing.file(operation, file) if operation.state == "done" else None
    if path is None:
        raise RecordError(f"the operation has no file {shown(file)}")
    return FileResponse(path, filename=file, media_type="application/octet-stream")


@router.get(
    "/searches/{name}/report", response_class=FileResponse,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def report(name: Name, user: Asking, service: Serving, doing: Doing) -> Response:
    """Return the report of a search as a page; one that is not written yet is waited for."""
    wish = ReportWish(kind="report")
    operation = await run_in_threadpool(_begun, user, service, doing, name, wish)
    until = time.monotonic() + _PATIENCE_SECONDS
    while not operation.is_over:
        if time.monotonic() > until:
            raise Refused(503, "the report is not written yet; ask again in a minute")
        await asyncio.sleep(_POLL_SECONDS)
        operation = doing.read(operation.begun.id) or operation
    path = doing.file(operation, f"{name}.html")
    if path is None:
        raise Refused(409, OperationView.of(operation).problem or "there is no report")
    return FileResponse(
        path, filename=f"{name}.html", media_type="text/html", content_disposition_type="inline",
        headers={"Content-Security-Policy": _REPORT_POLICY},
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------


def _begun(user: User, service: Service, doing: Operations, name: str, wish: Wish) -> Operation:
    """Begin an operation that a user may have."""
    for each in (name, *wish.others()):
        service.readable(user, each)
    if wish.trains and user.role == "viewer":
        raise Refused(403, f"{user.name} is a viewer, and may not train a trial again")
    stamp = [service.searches.stamp(each) for each in (name, *wish.others())]
    number = wish.trial_number
    trials = service.searches.read(name, lambda search: set(search.board.trials))
    if trials is None:
        raise Refused(409, f"{name} has not begun")
    if number is not None and number not in trials:
        raise RecordError(f"{name} has no trial {number}")
    try:
        operation = doing.begin(name, wish, user.name, str(stamp))
    except ValueError as error:
        raise Refused(400, str(error)) from error
    if not operation.is_over:
        detail = wish.kind if number is None else f"{wish.kind}, trial {number}"
        service.database.note(user.name, "operation", name, detail)
    return operation


def _readable(user: User, service: Service, doing: Operations, number: str) -> Operation:
    operation = doing.read(number)
    if operation is None or not _may_read(user, service, operation):
        raise RecordError(f"there is no operation {shown(number)}")
    return operation


def _may_read(user: User, service: Service, operation: Operation) -> bool:
    """Return True if a user may see an operation: what is generated is of who asked for it."""
    begun = operation.begun
    is_own = begun.user == user.name or user.role == "admin"
    if begun.kind == "generate" and not is_own:
        return False
    try:
        for each in (begun.search, *begun.others):
            service.readable(user, each)
    except RecordError:
        return False
    return True
