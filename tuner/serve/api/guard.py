"""What stands before every request: whose pages may call, how much is read, what is logged."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuner.texts.control_characters import visible

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MOST_BYTES = 1 << 20  # of a body, but for uploads
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with none, browsers send forms without their origin
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)


class Guard:
    """Middleware of ASGI.

    Args:
        app: the application.
        hosts: names that the header `Host` may have; None for any, where tokens protect.
        limits: path → largest body in bytes, where it is not a megabyte.
        log: function that takes a line of the access log.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] | None = LOOPBACK,
        limits: Mapping[str, int] = MappingProxyType({}),
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._app, self._hosts, self._limits = app, hosts, limits
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                known = {name.lower() for name, _ in message["headers"]}
                more = (each for each in _HEADERS if each[0] not in known)
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            refusal = self._refusal(headers, self._limits.get(scope["path"], _MOST_BYTES))
            if refusal is not None:
                await _refuse(answer, *refusal)
            else:
                await self._app(scope, self._counted(scope["path"], receive), answer)
        finally:
            if self._log is not None:
                self._log(_line(scope, status, time.monotonic() - begun))

    def _refusal(self, headers: dict[str, str], limit: int) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            return 403, "this server does not answer to this name; see --allowed-host"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "a page of another server may not call this one"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            return 413, f"the body is larger than {limit:,} bytes"
        return None

    def _counted(self, path: str, receive: Receive) -> Receive:
        """Return a function that reads a body, and no more of it than is allowed."""
        read, limit = 0, self._limits.get(path, _MOST_BYTES)

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                return {"type": "http.disconnect"}
            return message

        return receive_some


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _name_of(host: str) -> str:
    """Return the name in a header `Host`, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _line(scope: Scope, status: int, seconds: float) -> str:
    """Return a line of the access log as JSON, without the query, in which a secret may be."""
    client = scope.get("client")
    return json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": client[0] if client else "",
            "user": scope.get("state", {}).get("user", ""),
            "method": scope["method"],
            "path": visible(scope["path"]),
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
    )


def log_to_stderr(line: str) -> None:
    """Write a line of the access log."""
    sys.stderr.write(f"{line}\n")
