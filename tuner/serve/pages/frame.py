"""The frame of every page: its template, who looks at it, where one can go from it."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

import tuner
from tuner.report.templates import in_script, templates_in
from tuner.serve.access import pledge_of
from tuner.serve.api.requests import LOGIN_COOKIE
from tuner.serve.pages.files import PageFiles
from tuner.serve.records import User
from tuner.texts.control_characters import in_json

# Key of the page, its path and its title; pages that only an admin sees have True.
NAVIGATION: tuple[tuple[str, str, str, bool], ...] = (
    ("searches", "/", "Searches", False),
    ("new", "/new", "New search", False),
    ("compare", "/compare", "Compare", False),
    ("machines", "/machines", "Machines", False),
    ("users", "/users", "Users", True),
)
LOGIN = "/login"


class Frame:
    """Renders the pages of a server; kept as `app.state.frame`."""

    @cached_property
    def files(self) -> PageFiles:
        """Scripts and styles."""
        return PageFiles.read()

    @cached_property
    def _templates(self) -> jinja2.Environment:
        templates = templates_in("tuner.serve.pages", "templates")
        templates.globals["static"] = self.files.path
        return templates

    def page(
        self,
        request: Request,
        template: str,
        user: User | None,
        *,
        here: str = "",
        data: str = "{}",
        status: int = 200,
        **values: Any,
    ) -> Response:
        """Return a page.

        Args:
            request: the request.
            template: name of the template, which extends base.html.
            user: who looks at it; None before the login.
            here: key of the page in the navigation.
            data: JSON that the script of the page begins with.
            status: status of HTTP.
            values: values of the template; `title` is the title of the page.
        """
        secret = request.cookies.get(LOGIN_COOKIE)
        is_admin = user is not None and user.role == "admin"
        text = self._templates.get_template(template).render(
            user=user,
            can_log_out=secret is not None and user is not None and bool(user.token_id),
            pledge=pledge_of(secret).decode() if secret else "",
            navigation=[each[:3] for each in NAVIGATION if is_admin or not each[3]] if user else [],
            here=here,
            data=in_script(in_json(data)),
            version=tuner.__version__,
            **values,
        )
        return HTMLResponse(text, status)

    def refusal(self, request: Request, status: int, message: str) -> Response:
        """Return the page that says why there is none; who is not logged in may do so."""
        if status == 401:
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"{LOGIN}?{urlencode({'next': path})}", 303)
        title = "There is no such page" if status == 404 else "That did not work"
        return self.page(request, "refusal.html", None, title=title, message=message, status=status)


def wants_page(request: Request) -> bool:
    """Return True if a person asks for a page, False if a program calls the API."""
    is_page = not request.url.path.startswith(("/api/", "/static/", "/metrics", "/readyz"))
    return is_page and "text/html" in request.headers.get("accept", "")


def search_path(name: str) -> str:
    """Return the path of the page of a search."""
    return f"/searches/{quote(name, safe='')}"
