"""Fake workers that answer when the test says so."""

from __future__ import annotations

import platform
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError


class Answer:
    """Reference to the answer to a call; `value` is None before the answer."""

    value: Any = None


class FakeWorker:
    def __init__(self) -> None:
        self.asked: list[Answer] = []

    @property
    def ping(self) -> FakeWorker:
        return self

    @property
    def measure_load(self) -> FakeWorker:
        return self

    def remote(self) -> Answer:
        self.asked.append(Answer())
        return self.asked[-1]

    def answer(self, pid: int, host: str = "") -> None:
        self.asked[-1].value = {"pid": pid, "host": host or platform.node()}

    def die(self) -> None:
        self.asked[-1].value = ActorUnavailableError("gone", b"0" * 16)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def patch_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ray.get` and `ray.wait` read the answers of fake workers."""

    def get(answer: Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def wait(answers: list[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        assert timeout == 0, "the driver does not wait"
        return [a for a in answers if a.value], [a for a in answers if not a.value]

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", wait)
