"""Trials that train on a device for gpu.py, and their outcomes bit for bit.

K = slots in a stack.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.checkpoints import checkpoint
from model.corpus.device_dataset import put
from model.engine import engine as engine_module
from model.engine.engine import Engine
from model.optimizers.registry import OPTIMIZERS
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack import stack as stack_module
from model.stack.cuda_graphs import Compute, Graphs, Result, capturing
from model.stack.plan import Tick
from model.stack.stack import Stack
from parts import synthetic
from parts.fusion.jobs import SEQUENCES
from parts.fusion.sides import text
from parts.gpu.measurement import Where

VALIDATION = 8  # sequences of a report
SMALL = Architecture(vocab_size=512, d_model=64, n_layers=2, n_heads=4, context_length=64)
TINY = Architecture(vocab_size=288, d_model=24, n_layers=1, n_heads=2, context_length=7)


class Outcome(NamedTuple):
    """Reports of a trial with all their numbers, and a digest of its last checkpoint."""

    reports: tuple[tuple[Any, ...], ...]
    state: str | None

    @property
    def status(self) -> str:
        """Status of the last report."""
        return str(self.reports[-1][0])

    @property
    def loss(self) -> float | None:
        """Validation loss of the last report; None if the trial diverged."""
        loss: float | None = self.reports[-1][2]
        return loss


def spec_of(a: Architecture, seed: int = 0, **rows: Any) -> TrialSpec:
    """Return a trial of a few updates with three reports; its ticks have two sequences."""
    rows = {"batch_size": 4, "max_learning_rate": 0.01, "total_steps": 6, **rows}
    ticks = rows["batch_size"] // 2
    return synthetic.trial(a, seed, rows, (SEQUENCES, VALIDATION), reports=3, ticks=ticks)


def mixed(a: Architecture) -> dict[str, TrialSpec]:
    """Return trials of every optimizer and regularizer, and one that diverges, by name."""
    rows: dict[str, dict[str, Any]] = {
        "diverging": {
            "optimizer": "sgd",
            "max_learning_rate": 100.0,
            "weight_decay": 10.0,
            "grad_clip": 0.0,
            "warmup_steps": 0,
            "total_steps": 12,
        },
        **{name: {"optimizer": name} for name in OPTIMIZERS},
        "z-loss": {"z_loss": 0.01},
        "mean of the weights": {"ema_decay": 0.9},
        "pruning": {"target_sparsity": 0.5, "prune_interval_steps": 1},
        "clipped values": {"grad_clip_value": 0.01},
        "L1": {"l1_penalty": 0.01},
        "label smoothing": {"label_smoothing": 0.1},
        "dropout": {"dropout": 0.1},
        "attention dropout": {"attention_dropout": 0.2},
        "token noise": {"token_noise": 0.1},
        "larger batch": {"batch_size": 6},
    }
    return {name: spec_of(a, seed, **row) for seed, (name, row) in enumerate(rows.items())}


def engine_of(a: Architecture, where: Where, *, slots: int, dtype: str, **options: Any) -> Engine:
    """Return an engine with one stack of synthetic tokens."""
    tokens = text(a)
    return Engine(
        tokens, tokens, slots=slots, width=slots, device=where.device, dtype=dtype, **options
    )


def outcomes(
    specs: Sequence[TrialSpec],
    where: Where,
    *,
    slots: int,
    dtype: str,
    stop: Mapping[int, int] | None = None,
    resume: Mapping[int, Path] | None = None,
    folder: Path | None = None,
) -> list[Outcome]:
    """Train trials of one shape together, and return the outcome of each.

    Args:
        specs: trials; those that find no slot wait for one.
        where: device.
        slots: K.
        dtype: dtype of the computation.
        stop: trial → number of reports after which it is stopped.
        resume: trial → checkpoint from which it resumes.
        folder: folder of the checkpoints; by default a temporary one.

    Raises:
        Exception: of a trial that cannot start.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            )
        a = specs[0].architecture
        engine = engine_of(a, where, slots=slots, dtype=dtype, checkpoint_dir=folder)
        for number, spec in enumerate(specs):
            engine.add_trial(str(number), spec, (resume or {}).get(number))
        reports: list[list[tuple[Any, ...]]] = [[] for _ in specs]
        states: list[str | None] = [None] * len(specs)
        while engine.num_pending:
            for report in engine.step():
                number = int(report.trial_id)
                values = [None if v != v else v for v in report.metrics().values()]  # noqa: PLR0124 - NaN
                reports[number].append((str(report.status), report.step, *values))
                if report.checkpoint:
                    states[number] = _digest(checkpoint.read(Path(report.checkpoint))[0])
                if len(reports[number]) == (stop or {}).get(number):
                    engine.stop(report.trial_id)
            for error in engine.failures.values():
                raise error
        return [Outcome(tuple(r), s) for r, s in zip(reports, states, strict=True)]


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def differing(names: Sequence[str], one: Sequence[Outcome], other: Sequence[Outcome]) -> list[str]:
    """Return the names of the trials whose outcomes are not equal bit for bit."""
    return [name for name, a, b in zip(names, one, other, strict=True) if a != b]


def largest_difference(one: Sequence[Outcome], other: Sequence[Outcome]) -> float:
    """Return the largest relative difference of the last losses of trials that did not diverge."""
    pairs = [(a.loss, b.loss) for a, b in zip(one, other, strict=True)]
    return max(
        (abs(a - b) / abs(a) for a, b in pairs if a is not None and b is not None), default=0.0
    )


# ticks of a GPU ----------------------------------------------------------------------------------


class _Counted(Graphs):
    """Graphs that count the ticks that they replay."""

    replayed = 0

    def run(self, kind: Any, compute: Compute, tick: Tick) -> Result:
        _Counted.replayed += self._known.get(kind) is not None
        return super().run(kind, compute, tick)


class _NoGraphs(Graphs):
    """Runs every tick operation by operation."""

    def run(self, kind: Any, compute: Compute, tick: Tick) -> Result:
        return compute(tick)


def _replayed(compute: Any) -> tuple[Any, Result]:
    """Stand in for the capture of a graph on a CPU: each replay computes again."""
    results: list[Tensor] = []

    def replay() -> None:
        for number, new in enumerate(compute()):
            if number == len(results):
                results.append(new.clone())
            results[number].copy_(new)

    return replay, results  # type: ignore[return-value]


@contextlib.contextmanager
def ticks_of_a_gpu(
    where: Where, *, graphs: bool = True, kernel: bool = True
) -> Iterator[type[_Counted]]:
    """Let stacks train as on a GPU, with or without graphs and the kernel of the update.

    A CPU then rehearses what a GPU does: data on the device, graphs, and one update for all slots.

    Yields:
        Class whose `replayed` counts the replayed ticks.
    """

    def stack(*arguments: Any, **options: Any) -> Stack:
        capture = capturing(torch.device(where.device)) if where.on_gpu else _replayed
        chosen = _Counted(capture) if graphs else _NoGraphs(capture)
        return Stack(*arguments, **options, graphs=chosen)

    before = engine_module.Stack, engine_module.on_device, stack_module._kernel
    _Counted.replayed = 0
    engine_module.Stack = stack  # type: ignore[misc, assignment]
    if not where.on_gpu:
        engine_module.on_device = put  # type: ignore[assignment]
    if not kernel:
        stack_module._kernel = lambda _: None  # type: ignore[assignment]
    try:
        yield _Counted
    finally:
        engine_module.Stack, engine_module.on_device, stack_module._kernel = before  # type: ignore[misc]
