from __future__ import annotations

import pytest

from tuner.schedulers import pb2


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """PB2 looks for its setting less thoroughly, where only the protocol is under test."""
    monkeypatch.setattr(pb2, "_ANYWHERE", 8)
    monkeypatch.setattr(pb2, "_NEAR", ((4, 0.15, False), (4, 0.05, True)))
    monkeypatch.setattr(pb2, "_NEWEST", 30)
