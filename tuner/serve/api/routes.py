"""The routes of the API, each a few lines above the `Service`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from tuner.errors import RecordError
from tuner.journal.fold import Search
from tuner.serve.access import Refused
from tuner.serve.api.answers import NOT_MODIFIED
from tuner.serve.api.files import file_of, files_of
from tuner.serve.api.requests import YAML, Asking, Class, Giving, Name, Seen, Serving
from tuner.serve.api.stream import JournalLines, stream
from tuner.serve.api.uploads import keep_upload
from tuner.serve.curves import curves_of
from tuner.serve.dispatcher import FOLDER
from tuner.serve.queue import Priority
from tuner.serve.service import Wish
from tuner.serve.spaces import UPLOADS
from tuner.serve.views import (
    ENDED,
    AuditView,
    ConflictView,
    CurvesView,
    FileList,
    QueueView,
    SearchList,
    SearchView,
    UploadView,
)
from tuner.space_file.overrides import Override

router = APIRouter(tags=["searches"])
_PAGE = 100

Suffix = Literal[".txt", ".jsonl", ".csv", ".tsv", ".parquet"]


_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}


@router.post(
    "/searches", status_code=201, openapi_extra=YAML,
    responses={409: {"model": ConflictView, "description": "The earlier search"}},
)  # fmt: skip
async def submit(
    request: Request,
    user: Asking,
    service: Serving,
    name: Annotated[str | None, Query(max_length=100)] = None,
    priority: Class = "normal",
    visibility: Seen = "team",
    least: Annotated[int | None, Query(ge=1, le=4096)] = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> SearchView:
    """Put a search into the queue; its space is the body."""
    data = await request.body()
    wish = Wish(name, Priority[priority.upper()], visibility, least, idempotency_key)
    return await run_in_threadpool(service.submit, user, data, wish)


@router.post(
    "/searches/{name}/fork", status_code=201,
    openapi_extra={"requestBody": {**YAML["requestBody"], "required": False}},
    responses={409: {"model": ConflictView, "description": "The search of an equal space"}},
)  # fmt: skip
async def fork(
    name: Name,
    request: Request,
    user: Asking,
    service: Serving,
    new_name: Annotated[str | None, Query(max_length=100)] = None,
    priority: Class = "normal",
    visibility: Seen = "team",
    least: Annotated[int | None, Query(ge=1, le=4096)] = None,
    changes: Annotated[
        list[str] | None, Query(alias="set", description="KEY=VALUE, as --set", max_length=50)
    ] = None,
) -> SearchView:
    """Put a search into the queue whose space is that of another one, changed."""
    data = await request.body()
    wish = Wish(new_name, Priority[priority.upper()], visibility, least)
    try:
        made = [Override.parse(each) for each in changes or ()]
    except ValueError as error:
        raise Refused(400, f"set {error}") from error
    return await run_in_threadpool(service.fork, user, name, data, wish, made)


@router.get("/searches", response_model=SearchList, responses=NOT_MODIFIED)
async def list_searches(
    request: Request,
    user: Asking,
    service: Serving,
    answers: Giving,
    state: Annotated[str | None, Query(max_length=20)] = None,
    owner: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = _PAGE,
    page: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """List searches, the newest first."""

    def made() -> SearchList:
        named = [
            (name, entry) for name, entry in service.names(user)
            if owner is None or (entry.owner if entry else "") == owner
        ]  # fmt: skip
        names = [name for name, _ in named]
        start = names.index(page) + 1 if page in names else 0
        found: list[SearchView] = []
        for each in named[start:]:
            if len(found) == limit:
                return SearchList(searches=found, next=found[-1].name)
            (view,) = service.views([each])
            if state is None or view.state == state:
                found.append(view)
        return SearchList(searches=found)

    return await answers.give(request, user, made)


@router.get("/queue", response_model=QueueView, responses=NOT_MODIFIED)
async def show_queue(request: Request, user: Asking, service: Serving, answers: Giving) -> Response:
    """List the searches that run, and those that wait, in the order in which they will begin."""

    def made() -> QueueView:
        active = {entry.name for entry in service.database.active()}
        views = service.views([each for each in service.names(user) if each[0] in active])
        waiting = [view for view in views if view.state == "waiting"]
        return QueueView(
            running=[view for view in views if view.state != "waiting"],
            waiting=sorted(waiting, key=lambda view: view.position or math.inf),
            devices=service.machine.number,
        )

    return await answers.give(request, user, made)


@router.get("/searches/{name}", response_model=SearchView, responses=NOT_MODIFIED)
async def show_search(
    name: Name, request: Request, user: Asking, service: Serving, answers: Giving
) -> Response:
    """Show a search."""
    return await answers.give(request, user, lambda: service.view(user, name))


@router.post("/searches/{name}/pause")
def pause(name: Name, user: Asking, service: Serving) -> SearchView:
    """Pause a search after the reports under way; it keeps its place in the queue."""
    return service.change(user, name, "pause")


@router.post("/searches/{name}/resume")
def resume(name: Name, user: Asking, service: Serving) -> SearchView:
    """Let a search go on that was paused or stopped, or has failed."""
    return service.change(user, name, "resume")


@router.post("/searches/{name}/stop")
def stop(name: Name, user: Asking, service: Serving) -> SearchView:
    """End a search; it can be resumed."""
    return service.change(user, name, "stop")


@router.post("/searches/{name}/edit", openapi_extra=YAML)
async def edit(name: Name, request: Request, user: Asking, service: Serving) -> SearchView:
    """Give a search another space; one that runs goes on with it after the reports under way."""
    data = await request.body()
    return await run_in_threadpool(service.edit, user, name, data)


@router.post("/searches/{name}/priority")
def prioritize(
    name: Name,
    user: Asking,
    service: Serving,
    priority: Class | None = None,
    before: Annotated[str | None, Query(min_length=1, max_length=100)] = None,
) -> SearchView:
    """Change the class of a search, or move it before another one."""
    if priority is None and before is None:
        raise Refused(400, "give priority or before")
    return service.prioritize(user, name, Priority[priority.upper()] if priority else None, before)


@router.delete("/searches/{name}", status_code=204)
def delete(name: Name, user: Asking, service: Serving) -> Response:
    """Delete a search, its runs and its files."""
    service.delete(user, name)
    return Response(status_code=204)


@router.get(
    "/searches/{name}/events", response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENT}}},
        204: {"description": "The search has ended, and the client has all of its events"},
    },
)  # fmt: skip
async def events(
    name: Name,
    user: Asking,
    service: Serving,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """Stream the events of a search: ids are places in its journal, from 1."""
    view = await run_in_threadpool(service.view, user, name)
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal():
        after = int(last_event_id)
    place = service.searches.place_before(name, after)
    lines = JournalLines(service.home.search(name), after, place)

    def look() -> SearchView | None:
        try:
            return service.view(user, name)
        except RecordError:
            return None

    async def text() -> AsyncIterator[str]:
        async for part in stream(lines, look, asyncio.sleep):
            yield part

    if view.state in ENDED and last_event_id is not None:
        new = await run_in_threadpool(lines.read)
        if not new:
            return Response(status_code=204)
        lines = JournalLines(service.home.search(name), after, place)
    return StreamingResponse(
        text(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


@router.get("/searches/{name}/curves", response_model=CurvesView, responses=NOT_MODIFIED)
async def curves(
    name: Name,
    request: Request,
    user: Asking,
    service: Serving,
    answers: Giving,
    points: Annotated[int, Query(ge=3, le=2000)] = 200,
    trials: Annotated[list[int] | None, Query(max_length=100)] = None,
) -> Response:
    """Return the objective of each trial at its reports, or at the most telling of them."""

    def drawn(search: Search) -> CurvesView:
        made = curves_of(search, points, trials)
        return CurvesView(metric=search.board.metric, curves=made, num_events=search.num_events)

    def made() -> CurvesView:
        service.readable(user, name)
        return service.searches.read(name, drawn) or CurvesView(metric="", curves=[])

    return await answers.give(request, user, made)


@router.get("/searches/{name}/files")
def list_files(name: Name, user: Asking, service: Serving) -> FileList:
    """List the files of a search that can be downloaded."""
    return FileList(files=files_of(service.home, name, service.readable(user, name)))


@router.get(
    "/searches/{name}/files/{file}", response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
)  # fmt: skip
def download(
    name: Name,
    file: Annotated[str, Path(min_length=1, max_length=200)],
    user: Asking,
    service: Serving,
) -> Response:
    """Download a file of a search: its space, its journal, its log, its report."""
    return file_of(service.home, name, service.readable(user, name), file)


@router.post(
    "/uploads", status_code=201, tags=["data"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
        }
    },
)  # fmt: skip
async def upload(
    request: Request, user: Asking, service: Serving, suffix: Suffix = ".txt"
) -> UploadView:
    """Keep a file of data, whose path a space may name in data.files."""
    if user.role == "viewer":
        raise Refused(403, f"{user.name} is a viewer, and may not upload data")
    folder = service.home.root / FOLDER / UPLOADS
    path, size = await keep_upload(request.stream(), folder, suffix)
    await run_in_threadpool(service.database.note, user.name, "upload", "", path)
    return UploadView(path=f"{UPLOADS}/{path}", bytes=size)


@router.get("/audit", tags=["users"])
def audit(
    user: Asking, service: Serving, limit: Annotated[int, Query(ge=1, le=1000)] = _PAGE
) -> list[AuditView]:
    """List the newest changes, for admins."""
    if user.role != "admin":
        raise Refused(403, "only an admin reads the audit log")
    return [AuditView(**vars(line)) for line in service.database.audit(limit)]
