"""Workers that answer when the test says so, in the place of Ray's actors."""

from __future__ import annotations

import platform
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError


class Answer:
    """What Ray gives for a call, before there is an answer."""

    value: Any = None


class FakeWorker:
    def __init__(self) -> None:
        self.asked: list[Answer] = []

    @property
    def pulse(self) -> FakeWorker:
        return self

    @property
    def vitals(self) -> FakeWorker:
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


def hear_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `ray.get` and `ray.wait` take the answers of fakes."""

    def get(answer: Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def wait(answers: list[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        assert timeout == 0, "the driver does not wait"
        return [a for a in answers if a.value], [a for a in answers if not a.value]

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", wait)
