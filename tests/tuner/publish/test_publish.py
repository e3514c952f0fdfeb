"""Publication of a search: what it leaves out, and errors that it explains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.results.finished_search import result_in
from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.publish import publish, registry
from tuner.report import write


@pytest.mark.parametrize(
    ("status", "registered", "told"),
    [
        ("finished", SimpleNamespace(description="lm, version 2", is_new=True), "lm, version 2"),
        ("finished", SimpleNamespace(description="lm, version 2", is_new=False), None),
        ("finished", None, None),
        ("interrupted", pytest.fail, None),
    ],
)
def test_best_model_of_a_finished_search_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Any, registered: Any, told: str | None
) -> None:
    def register(home: Home, result: Any) -> Any:
        return registered("it is not finished") if callable(registered) else registered

    monkeypatch.setattr(registry, "register", register)
    result = replace(result_in(tmp_path), status=status)
    assert publish.register_model(Home(tmp_path, "sqlite:///none.db"), result) == told


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ValueError("no curve"),
            "the report of made-up-1 could not be written: no curve; 'tuner report --search "
            "made-up-1 --debug' shows why",
        ),
        (StoreError("the store is busy"), "the store is busy"),
    ],
)
def test_report_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def write_report(*_: Any) -> None:
        raise error

    monkeypatch.setattr(write, "write_report", write_report)
    monkeypatch.setattr(write, "samples_of", lambda *_: ())
    with pytest.raises(StoreError) as raised:
        publish.attach_report(Home(tmp_path, "sqlite:///none.db"), result_in(tmp_path))
    assert str(raised.value) == message
