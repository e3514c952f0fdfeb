"""Login of a browser: a token becomes a cookie that no script can read."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from tuner.serve.access import LOGIN_SECONDS, Access, Refused
from tuner.serve.api.requests import LOGIN_COOKIE, address_of
from tuner.serve.pages.frame import LOGIN, Frame

router = APIRouter(include_in_schema=False)


@router.get(LOGIN)
def show_login(request: Request, next: str = "/") -> Response:
    """Ask for a token."""
    return _form(request, _local(next))


@router.post(LOGIN)
async def log_in(request: Request) -> Response:
    """Take a token, and give the browser a cookie."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    token, after = (form.get(name, [""])[0] for name in ("token", "next"))
    access: Access = request.app.state.access
    try:
        secret = await run_in_threadpool(access.log_in, token.strip(), address_of(request))
    except Refused as error:
        return _form(request, _local(after), str(error), error.status)
    answer = RedirectResponse(_local(after), 303)
    answer.set_cookie(
        LOGIN_COOKIE, secret, int(LOGIN_SECONDS), httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the login of the browser."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    access: Access = request.app.state.access
    secret = request.cookies.get(LOGIN_COOKIE, "")
    await run_in_threadpool(access.logged_in, secret, form.get("pledge", [""])[0])
    await run_in_threadpool(access.log_out, secret)
    answer = RedirectResponse(LOGIN, 303)
    answer.delete_cookie(LOGIN_COOKIE, httponly=True, samesite="lax")
    return answer


def _form(request: Request, after: str, problem: str = "", status: int = 200) -> Response:
    frame: Frame = request.app.state.frame
    return frame.page(
        request, "login.html", None, title="Log in", after=after, problem=problem, status=status
    )


def _local(path: str) -> str:
    """Return a path of this server; anything else, such as an address elsewhere, is the first."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
