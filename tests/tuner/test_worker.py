"""The worker without Ray: its methods are plain coroutines."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from model.engine import Engine
from model.report import Status
from tests.conftest import MakeSpec
from tuner.worker import Worker

Tokens = tuple[np.ndarray, np.ndarray]


def test_worker_reports_what_the_engine_reports(
    tokens: Tokens, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec()
    expected = [r.metrics() for r in Engine(*tokens).run([spec])]

    async def scenario() -> None:
        worker = Worker(*tokens, 2, "cpu", str(tmp_path), str(tmp_path))
        assert (await worker.environment())["device"].startswith("cpu: ")
        assert await worker.start("7", spec.model_dump_json(), 0)
        reports = [await worker.next_report("7") for _ in expected]
        assert [r.metrics() for r in reports] == expected
        assert reports[-1].status is Status.FINISHED
        usage = await worker.usage()
        assert usage["tokens"] == spec.budget_tokens
        assert usage["training_seconds"] > 0

    asyncio.run(scenario())


def test_worker_admits_no_more_than_asked(
    tokens: Tokens, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Two clients that saw the same load cannot both get in."""
    spec = make_spec(steps=10_000).model_dump_json()

    async def scenario() -> None:
        worker = Worker(*tokens, 2, "cpu", str(tmp_path), str(tmp_path))
        await worker.environment()
        assert await worker.start("a", spec, 0)
        assert not await worker.start("b", spec, 0)
        assert await worker.load() == 1
        await worker.stop("a")
        await worker.stop("a")  # harmless
        assert await worker.start("b", spec, 0)
        await worker.stop("b")
        assert await worker.load() == 0

    asyncio.run(scenario())


def test_worker_passes_on_what_the_engine_died_of(
    tokens: Tokens, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode() -> None:
        raise RuntimeError("out of luck")

    async def scenario() -> None:
        worker = Worker(*tokens, 2, "cpu", str(tmp_path), str(tmp_path))
        # of this engine only: those of the tests before still have threads
        monkeypatch.setattr(worker._engine, "turn", explode)
        await worker.environment()
        await worker.start("a", make_spec().model_dump_json(), 0)
        for _ in range(2):  # the one who waits, and the one who asks later
            with pytest.raises(RuntimeError, match="out of luck"):
                await worker.next_report("a")
        with pytest.raises(RuntimeError, match="out of luck"):  # and attracts no more trials
            await worker.load()

    asyncio.run(scenario())
