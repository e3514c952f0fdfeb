"""The pages New search, Compare, Machines and Users: a template each, and data to begin with."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from tuner.serve.api.design import list_presets
from tuner.serve.api.machines import machine_view
from tuner.serve.api.people import list_users
from tuner.serve.api.requests import Asking, Serving
from tuner.serve.api.routes import audit
from tuner.serve.machine import LoadMeter
from tuner.serve.pages.routes import Framing
from tuner.space_file.symbols import schema

router = APIRouter(include_in_schema=False)
_EMPTY = "name: search\nbudget: {tokens: 240_000}\n"
_MOST_NAMES, _MOST_LINES = 500, 200


@router.get("/new")
def new_search(
    request: Request,
    user: Asking,
    service: Serving,
    frame: Framing,
    preset: Annotated[str, Query(max_length=100)] = "",
    fork: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Show the form and the text of a new search, or of a fork of another one."""
    text = service.space_text(user, fork) if fork else _EMPTY
    presets = list_presets(user)
    if not preset and not fork:
        preset = "lm"
    values = {
        "presets": _plain(presets), "schema": schema(), "text": text, "preset": preset,
        "fork": fork,
    }  # fmt: skip
    return frame.page(
        request, "new.html", user, here="new", title="New search", data=json.dumps(values)
    )


@router.get("/compare")
def compare(
    request: Request,
    user: Asking,
    service: Serving,
    frame: Framing,
    search: Annotated[list[str] | None, Query(max_length=50)] = None,
) -> Response:
    """Show searches side by side."""
    names = [name for name, _ in service.names(user)][:_MOST_NAMES]
    data = json.dumps({"names": names, "chosen": search or []})
    return frame.page(request, "compare.html", user, here="compare", title="Compare", data=data)


@router.get("/machines")
def machines(request: Request, user: Asking, service: Serving, frame: Framing) -> Response:
    """Show the devices, who has them, and the load."""
    view = machine_view(user, service, cast(LoadMeter, request.app.state.meter))
    return frame.page(
        request, "machines.html", user, here="machines", title="Machines",
        data=view.model_dump_json(),
    )  # fmt: skip


@router.get("/users")
def users(request: Request, user: Asking, service: Serving, frame: Framing) -> Response:
    """Show the users, for admins."""
    users, lines = list_users(user, service), audit(user, service, _MOST_LINES)
    data = json.dumps({"users": _plain(users), "audit": _plain(lines)})
    return frame.page(request, "users.html", user, here="users", title="Users", data=data)


def _plain(items: list[Any]) -> list[Any]:
    return [item.model_dump(mode="json") for item in items if isinstance(item, BaseModel)]
