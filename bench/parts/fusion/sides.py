"""Sides of fusion.py: our engine, training loops, vmap, and the peak of the device.

All sides train equal trials: equal weights, equal data in equal order, equal learning rates, AdamW,
gradient clipping. K = trials of a process, B = sequences, T = tokens, N = updates.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from model.corpus.order import data_order
from model.device.memory import give_back
from model.engine.engine import Engine
from model.spec.architecture import Architecture
from model.spec.hyperparameters import Hyperparameters
from model.spec.parameter_names import is_decayed
from model.spec.schedules import learning_rate
from parts.fusion.jobs import SEQUENCES, Job
from parts.fusion.model import PlainModel

_ENDLESS = 1_000_000_000  # updates: no trial ends while it is timed


class Side(Protocol):
    """Training in one process."""

    def losses(self) -> dict[int, float]:
        """Return seed → mean training loss of the first N updates."""
        ...

    def rate(self, seconds: float) -> float:
        """Return tokens (or FLOPs) per second, measured over at least so many seconds."""
        ...


def text(a: Architecture) -> Any:
    """Return learnable tokens, some common and some rare, as in a language."""
    rng = np.random.default_rng(0)
    tokens = rng.zipf(1.3, SEQUENCES * a.context_length + 1) % a.vocab_size
    tokens[1::2] = (
        tokens[:-1:2] * 7 + 1
    ) % a.vocab_size  # every second token follows from the one before
    return tokens.astype(np.uint16)


def clock(device: str) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(step: Callable[[], float], seconds: float, device: str, group: int = 1) -> float:
    """Return the yield of steps per second; their number is a multiple of `group`."""
    begun, done, steps = clock(device), 0.0, 0
    while steps % group or time.perf_counter() - begun < seconds:
        done += step()
        steps += 1
    return done / (clock(device) - begun)


class Ours:
    """`Engine`, called as a search calls it."""

    def __init__(self, job: Job, *, is_compiled: bool = False) -> None:
        self._job = job
        tokens = text(job.architecture)
        chosen: dict[str, Any] = {} if job.dtype == "float32" else {"dtype": job.dtype}
        if is_compiled:
            chosen["is_compiled"] = True
        self._engine = Engine(tokens, tokens, slots=job.trials, device=job.device, **chosen)

    def losses(self) -> dict[int, float]:
        """Train the checked trials, then put the timed trials into the slots."""
        job, losses_by_slot = self._job, {}
        for seed in job.seeds[: job.checked]:
            self._engine.add_trial(f"checked {seed}", job.spec(seed, job.check))
        while self._engine.num_pending:
            reports = self._turn()
            losses_by_slot |= {int(r.trial_id.split()[1]): r.train_loss for r in reports}
        for seed in job.seeds:
            self._engine.add_trial(f"timed {seed}", job.spec(seed, _ENDLESS))
        for _ in range(self._stacks):
            self._turn()
        if self._engine.slots < job.trials:
            raise MemoryError(f"out of memory: {job.trials} trials do not fit")
        return losses_by_slot

    @property
    def _stacks(self) -> int:
        return math.ceil(self._job.trials / self._engine.width)

    def _turn(self) -> Sequence[Any]:
        reports = self._engine.step()
        for error in self._engine.failures.values():
            raise error
        return reports

    def _timed_turn(self) -> float:
        before = self._engine.tokens
        if self._turn():
            raise AssertionError("a trial reported while it was timed")
        return self._engine.tokens - before

    def rate(self, seconds: float) -> float:
        """Measure an equal number of turns of every stack."""
        return timed(self._timed_turn, seconds, self._job.device, self._stacks)


class NotDeterministic(Ours):
    """Our engine without torch's deterministic mode, for its price. Trials are not reproducible."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)  # sets the mode; nothing has been computed yet
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


class Batches:
    """Batches of trials: the text on the device, and the data order of each trial."""

    def __init__(self, job: Job) -> None:
        self._job, length = job, job.architecture.context_length
        ids = torch.from_numpy(text(job.architecture).astype(np.int64)).to(job.device)
        self._inputs, self._targets = (ids[i : i + SEQUENCES * length] for i in (0, 1))
        order = [data_order(seed, np.arange(SEQUENCES), SEQUENCES) for seed in job.seeds]
        self._order = torch.from_numpy(np.stack(order)).to(job.device)  # (K, sequences)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets (K, B, T) without end."""
        length, batch = self._job.architecture.context_length, self._job.batch
        inputs, targets = (x.view(-1, length) for x in (self._inputs, self._targets))
        while True:
            for begin in range(0, SEQUENCES - batch + 1, batch):
                chosen = self._order[:, begin : begin + batch]
                yield inputs[chosen], targets[chosen]


def optimizer_of(named: dict[str, Tensor], h: Hyperparameters) -> torch.optim.Optimizer:
    """Return AdamW with weight decay on matrices only."""
    groups = [
        {"params": [p for n, p in named.items() if is_decayed(n) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, h.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, 1.0, (h.beta1, h.beta2), h.eps, fused=True)


class Loop:
    """Training loop as a user writes it; subclasses compute a step."""

    def __init__(self, job: Job, named: dict[str, Tensor]) -> None:
        self._job = job
        self._hyperparameters = job.spec(job.seed, job.check).hyperparameters
        self._optimizer = optimizer_of(named, self._hyperparameters)
        self._batches = iter(Batches(job))
        self._updates = 0

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute and clip gradients for inputs and targets (K, B, T); return losses (K,)."""
        raise NotImplementedError

    def _step(self) -> Tensor:
        """Update all trials once, and return their losses."""
        self._updates += 1
        rate = learning_rate(self._updates, self._hyperparameters)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        losses = self._backward(*next(self._batches))
        self._optimizer.step()
        return losses

    def losses(self) -> dict[int, float]:
        """Train N updates; return seed → mean training loss."""
        sums: Tensor = sum(self._step() for _ in range(self._job.check))  # type: ignore[assignment]
        return dict(zip(self._job.seeds, (sums / self._job.check).tolist(), strict=True))

    def rate(self, seconds: float) -> float:
        """Return tokens per second."""
        tokens = self._job.trials * self._job.tokens

        def step() -> float:
            self._step()
            return tokens

        return timed(step, seconds, self._job.device)


def precision(job: Job) -> Any:
    """Return the autocast context of a dtype, and allow tf32 products if asked for."""
    if job.dtype == "tf32":
        torch.set_float32_matmul_precision("high")
    is_mixed = job.dtype == "bfloat16"
    return partial(torch.autocast, torch.device(job.device).type, torch.bfloat16, is_mixed)


class Plain(Loop):
    """One model, eager or compiled."""

    def __init__(self, job: Job, mode: str | None = None) -> None:
        self._mixed, self._mode = precision(job), mode
        self._model = PlainModel(job.architecture, job.seed).to(job.device)
        self._loss = self._eager if mode is None else torch.compile(self._eager, mode=mode)
        super().__init__(job, dict(self._model.named_parameters()))

    def _eager(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self._model(x).flatten(0, 1).float(), y.flatten())

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        if self._mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        with self._mixed():
            loss = self._loss(x[0], y[0])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        return loss.detach().clone().view(1)


class Vmapped(Loop):
    """`torch.func.vmap` over `stack_module_state`, as PyTorch's tutorial ensembles models."""

    def __init__(self, job: Job) -> None:
        self._mixed = precision(job)
        models = [PlainModel(job.architecture, seed).to(job.device) for seed in job.seeds]
        self._params, self._buffers = stack_module_state(models)  # type: ignore[arg-type]
        self._base = models[0].to("meta")
        super().__init__(job, self._params)

    def _loss(self, params: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(self._base, (params, buffers), (x,))
        return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        with self._mixed():
            losses: Tensor = vmap(self._loss)(self._params, self._buffers, x, y)  # (K,)
        losses.sum().backward()
        grads = [p.grad for p in self._params.values()]
        squares = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads])
        scale = (1 / torch.linalg.vector_norm(squares, dim=0)).clamp(max=1)  # (K,)
        for grad in grads:
            grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))
        return losses.detach()


class Peak:
    """Peak of the device: products of large square matrices."""

    def __init__(self, job: Job) -> None:
        precision(job)
        self._device, self._n = job.device, 1024 if job.device == "cpu" else 8192
        dtype = torch.bfloat16 if job.dtype == "bfloat16" else torch.float32
        self._a, self._b = torch.randn(2, self._n, self._n, device=job.device).to(dtype)
        self._out = torch.empty_like(self._a)

    def losses(self) -> dict[int, float]:
        """Warm up, and return no losses."""
        self.rate(0.2)
        return {}

    def rate(self, seconds: float) -> float:
        """Return FLOPs per second."""

        def some() -> float:
            for _ in range(10):
                torch.mm(self._a, self._b, out=self._out)
            if self._device != "cpu":
                torch.cuda.synchronize()  # the products hide its cost
            return 10 * 2.0 * self._n**3

        return timed(some, seconds, self._device)


SIDES: dict[str, Callable[[Job], Side]] = {
    "ours": Ours,
    "not deterministic": NotDeterministic,
    "ours, compiled": partial(Ours, is_compiled=True),
    "eager": Plain,
    "compiled": partial(Plain, mode="default"),
    "compiled, graphs": partial(Plain, mode="reduce-overhead"),
    "vmap": Vmapped,
    "peak": Peak,
}


def side_of(job: Job) -> Side:
    """Return the side of a job, ready to train."""
    if job.device == "cpu":
        torch.set_num_threads(job.threads)
    return SIDES[job.side](job)


def release(device: str) -> None:
    """Free the memory of a side that is no longer used."""
    gc.collect()
    give_back(torch.device(device))
