"""Answers that many clients ask for at one time: made once, kept as bytes, known by an ETag.

A hundred browsers that look at one list would have it made a hundred times a second. An answer is
given again for as long as a status is (`FRESH_SECONDS`), unless this server has changed its
database since: who submits a search sees it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from tuner.serve.records import User

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The answer is the one of the header If-None-Match"}
}
_MOST_BYTES = 32 << 20  # of all answers that are kept


@dataclass(frozen=True)
class _Answer:
    at: float
    version: int
    data: bytes
    tag: str


class Answers:
    """Answers as bytes, for a moment.

    Args:
        seconds: time for which an answer is given again.
        version: function that returns a number which changes with what answers are made of.
    """

    def __init__(self, seconds: float, version: Callable[[], int]) -> None:
        self._seconds, self._version = seconds, version
        self._kept: OrderedDict[str, _Answer] = OrderedDict()
        self._bytes = 0
        self._making: dict[str, asyncio.Task[_Answer]] = {}

    async def give(self, request: Request, user: User, make: Callable[[], BaseModel]) -> Response:
        """Return the answer to a request, or status 304 if the client has it.

        Args:
            request: the request; its path and query say what is asked.
            user: who asks; others may see something else.
            make: function that makes the answer, called in a thread.
        """
        key = f"{user.name}\n{user.role}\n{user.team}\n{request.url.path}?{request.url.query}"
        answer = self._kept.get(key)
        now, version = time.monotonic(), self._version()
        if answer is None or now - answer.at > self._seconds or answer.version != version:
            answer = await self._made(f"{version}\n{key}", key, version, make)
        headers = {"ETag": answer.tag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == answer.tag:
            return Response(status_code=304, headers=headers)
        return Response(answer.data, media_type="application/json", headers=headers)

    async def _made(
        self, call: str, key: str, version: int, make: Callable[[], BaseModel]
    ) -> _Answer:
        """Make an answer, once for all who ask in the meantime."""
        task = self._making.get(call)
        if task is None:
            task = asyncio.create_task(self._make(key, version, make))
            self._making[call] = task
            task.add_done_callback(lambda done: self._making.pop(call, None))
        return await asyncio.shield(task)  # a client that goes away takes it from no other

    async def _make(self, key: str, version: int, make: Callable[[], BaseModel]) -> _Answer:
        data = await run_in_threadpool(lambda: make().model_dump_json().encode())
        tag = f'"{hashlib.sha256(data).hexdigest()[:24]}"'
        answer = _Answer(time.monotonic(), version, data, tag)
        if (old := self._kept.pop(key, None)) is not None:
            self._bytes -= len(old.data)
        if self._seconds:
            self._kept[key] = answer
            self._bytes += len(data)
        while self._bytes > _MOST_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.data)
        return answer
