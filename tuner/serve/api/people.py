"""Routes of users: who asks, and for admins who may come and what they may use."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tuner.serve.access import (
    Access,
    Refused,
    change_user,
    disable_user,
    new_token,
    new_user,
    remove_user,
)
from tuner.serve.api.requests import Asking, Serving
from tuner.serve.records import Use, User

router = APIRouter(tags=["users"])


async def _known_at_once(request: Request) -> AsyncIterator[None]:
    """Let the server look at its users again after a change of them."""
    yield
    access: Access = request.app.state.access
    access.look_again()


_CHANGES = [Depends(_known_at_once)]
Role = Literal["viewer", "user", "admin"]
Person = Annotated[str, Path(description="Name of the user", min_length=1, max_length=100)]
_Weight = Annotated[float, Field(ge=1e-3, le=1e3)]
_Limit = Annotated[int, Field(ge=1, le=2**53)]
_Team = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class UserView(BaseModel):
    """A user.

    Attributes:
        name: name of the user.
        role: `viewer`, `user` or `admin`.
        team: name of the team.
        is_disabled: True if no token of the user works.
        weight: share of the machines, relative to those of others.
        most_searches: most searches that run at one time; None for no limit.
        most_devices: most devices that they have together.
        most_tokens: most training tokens of a day.
        used_seconds: device-seconds of late.
        tokens_today: training tokens of today.
        searches: number of searches that the user has in the queue.
    """

    name: str
    role: Role
    team: str = ""
    is_disabled: bool = False
    weight: float = 1.0
    most_searches: int | None = None
    most_devices: int | None = None
    most_tokens: int | None = None
    used_seconds: float = 0.0
    tokens_today: int = 0
    searches: int = 0


class MeView(BaseModel):
    """Who asks, and what the user may do."""

    name: str
    role: Role
    team: str


class UserChange(BaseModel):
    """Changes of a user; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    role: Role = "user"
    team: _Team = ""
    weight: _Weight = 1.0
    most_searches: _Limit | None = None
    most_devices: _Limit | None = None
    most_tokens: _Limit | None = None


class UserWish(UserChange):
    """A new user: name, role, team and limits."""

    name: str = Field(min_length=1, max_length=64)


class TokenView(BaseModel):
    """A user with a new token, which nobody can read again."""

    user: UserView
    token: str


@router.get("/me")
def show_me(user: Asking) -> MeView:
    """Say who asks."""
    return MeView.model_validate({"name": user.name, "role": user.role, "team": user.team})


@router.get("/users")
def list_users(user: Asking, service: Serving) -> list[UserView]:
    """List the users."""
    _check_admin(user)
    uses, searches = service.database.use(), service.database.searches()
    counts: dict[str, int] = {}
    for entry in searches:
        counts[entry.owner] = counts.get(entry.owner, 0) + bool(entry.wanted == "run")
    return [
        _view(each, uses.get(each.name), counts.get(each.name, 0))
        for each in service.database.users()
    ]


@router.post("/users", status_code=201, dependencies=_CHANGES)
def add_user(wish: Annotated[UserWish, Body()], user: Asking, service: Serving) -> TokenView:
    """Add a user; the first one must be an admin, because from then on all need a token."""
    _check_admin(user)
    users = {each.name for each in service.database.users()}
    if wish.name in users:
        raise Refused(409, f"there is a user {wish.name}; give another token instead")
    if not users and wish.role != "admin":
        raise Refused(409, "the first user must be an admin: from then on all need a token")
    values: dict[str, Any] = wish.model_dump()
    token = new_user(
        service.database, values.pop("name"), values.pop("role"), values.pop("team"), user.name,
        **values,
    )  # fmt: skip
    return TokenView(user=_named(service.database.users(), wish.name), token=token)


@router.patch("/users/{name}", dependencies=_CHANGES)
def edit_user(
    name: Person, change: Annotated[UserChange, Body()], user: Asking, service: Serving
) -> UserView:
    """Change role, team and limits of a user."""
    _check_admin(user)
    values = change.model_dump(exclude_unset=True)
    return _view(change_user(service.database, name, user.name, **values))


@router.post("/users/{name}/token", dependencies=_CHANGES)
def give_token(name: Person, user: Asking, service: Serving) -> TokenView:
    """Give a user another token; the old one ends."""
    _check_admin(user)
    token = new_token(service.database, name, user.name)
    return TokenView(user=_named(service.database.users(), name), token=token)


@router.post("/users/{name}/disable", dependencies=_CHANGES)
def disable(name: Person, user: Asking, service: Serving) -> UserView:
    """Let no token of a user work any more; another token ends that."""
    _check_admin(user)
    return _view(disable_user(service.database, name, user.name))


@router.delete("/users/{name}", status_code=204, dependencies=_CHANGES)
def remove(name: Person, user: Asking, service: Serving) -> Response:
    """Remove a user; the searches stay."""
    _check_admin(user)
    remove_user(service.database, name, user.name)
    return Response(status_code=204)


# -------------------------------------------------------------------------------------------------


def _check_admin(user: User) -> None:
    if user.role != "admin":
        raise Refused(403, "only an admin sees and changes users")


def _named(users: list[User], name: str) -> UserView:
    return next(_view(each) for each in users if each.name == name)


def _view(user: User, use: Use | None = None, searches: int = 0) -> UserView:
    use = use or Use(user.name)
    is_today = use.day == time.strftime("%Y-%m-%d", time.gmtime())
    return UserView.model_validate(
        {
            "name": user.name, "role": user.role, "team": user.team,
            "is_disabled": user.is_disabled, "weight": user.weight,
            "most_searches": user.most_searches, "most_devices": user.most_devices,
            "most_tokens": user.most_tokens, "used_seconds": use.seconds,
            "tokens_today": use.tokens if is_today else 0, "searches": searches,
        }
    )  # fmt: skip
