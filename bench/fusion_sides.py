"""Whose training is measured: our engine, and what users would run instead. One process each.

All train the same trials: same weights, same data in the same order, same learning rates, AdamW,
the gradient clipped. K = trials of a process, B = sequences, T = tokens, N = updates.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from fusion_jobs import SEQUENCES, Job
from fusion_model import PlainModel
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from model.corpus.order import data_order
from model.device.memory import give_back
from model.engine.engine import Engine
from model.spec.architecture import Architecture, is_decayed
from model.spec.hyperparameters import Hyperparameters
from model.spec.schedules import learning_rate

_ENDLESS = 1_000_000_000  # updates: no trial comes to its end while it is timed


class Side(Protocol):
    """A process that trains."""

    def losses(self) -> dict[int, float]:
        """Seed → mean training loss of the first N updates."""
        ...

    def rate(self, seconds: float) -> float:
        """What it did in a second, during so many seconds or a little more: tokens, or FLOPs."""
        ...


def text(a: Architecture) -> Any:
    """Tokens with something to learn, common ones and rare ones, as in a language."""
    rng = np.random.default_rng(0)
    tokens = rng.zipf(1.3, SEQUENCES * a.context_length + 1) % a.vocab_size
    tokens[1::2] = (tokens[:-1:2] * 7 + 1) % a.vocab_size  # every other one follows from the last
    return tokens.astype(np.uint16)


def clock(device: str) -> float:
    """Seconds, read when the device has done all that it was told."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(step: Callable[[], float], seconds: float, device: str, group: int = 1) -> float:
    """What steps gave per second; their number is a multiple of `group`."""
    begun, done, steps = clock(device), 0.0, 0
    while steps % group or time.perf_counter() - begun < seconds:
        done += step()
        steps += 1
    return done / (clock(device) - begun)


class Ours:
    """`Engine`, told what a search tells it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        tokens = text(job.architecture)
        chosen = {} if job.dtype == "float32" else {"dtype": job.dtype}
        self._engine = Engine(tokens, tokens, slots=job.trials, device=job.device, **chosen)

    def losses(self) -> dict[int, float]:
        """See `Side`; behind it, the trials that are timed are in their slots."""
        job, found = self._job, {}
        for seed in job.seeds[: job.checked]:
            self._engine.add_trial(f"checked {seed}", job.spec(seed, job.check))
        while self._engine.num_pending:
            reports = self._turn()
            found |= {int(r.trial_id.split()[1]): r.train_loss for r in reports}
        for seed in job.seeds:
            self._engine.add_trial(f"timed {seed}", job.spec(seed, _ENDLESS))
        for _ in range(self._stacks):
            self._turn()
        if self._engine.slots < job.trials:
            raise MemoryError(f"out of memory: {job.trials} trials do not fit")
        return found

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
        """Every stack gets equally many turns."""
        return timed(self._timed_turn, seconds, self._job.device, self._stacks)


class Batches:
    """What some trials read: the text on the device, and an epoch's order of each."""

    def __init__(self, job: Job) -> None:
        self._job, length = job, job.architecture.context_length
        ids = torch.from_numpy(text(job.architecture).astype(np.int64)).to(job.device)
        self._inputs, self._targets = (ids[i : i + SEQUENCES * length] for i in (0, 1))
        order = [data_order(seed, np.arange(SEQUENCES), SEQUENCES) for seed in job.seeds]
        self._order = torch.from_numpy(np.stack(order)).to(job.device)  # (K, sequences)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets (K, B, T), without end."""
        length, batch = self._job.architecture.context_length, self._job.batch
        inputs, targets = (x.view(-1, length) for x in (self._inputs, self._targets))
        while True:
            for begin in range(0, SEQUENCES - batch + 1, batch):
                own = self._order[:, begin : begin + batch]
                yield inputs[own], targets[own]


def optimizer_of(named: dict[str, Tensor], h: Hyperparameters) -> torch.optim.Optimizer:
    """AdamW, the decay on matrices only."""
    groups = [
        {"params": [p for n, p in named.items() if is_decayed(n) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, h.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, 1.0, (h.beta1, h.beta2), h.eps, fused=True)


class Loop:
    """A training loop as a user writes it; how a step is computed is the subclasses' affair."""

    def __init__(self, job: Job, named: dict[str, Tensor]) -> None:
        self._job = job
        self._hyperparameters = job.spec(job.seed, job.check).hyperparameters
        self._optimizer = optimizer_of(named, self._hyperparameters)
        self._batches = iter(Batches(job))
        self._updates = 0

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Make gradients of inputs and targets (K, B, T), clip them; the losses (K,)."""
        raise NotImplementedError

    def _step(self) -> Tensor:
        """One update of all trials; their losses."""
        self._updates += 1
        rate = learning_rate(self._updates, self._hyperparameters)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        losses = self._backward(*next(self._batches))
        self._optimizer.step()
        return losses

    def losses(self) -> dict[int, float]:
        """See `Side`."""
        sums: Tensor = sum(self._step() for _ in range(self._job.check))  # type: ignore[assignment]
        return dict(zip(self._job.seeds, (sums / self._job.check).tolist(), strict=True))

    def rate(self, seconds: float) -> float:
        """See `Side`."""
        tokens = self._job.trials * self._job.tokens

        def step() -> float:
            self._step()
            return tokens

        return timed(step, seconds, self._job.device)


def precision(job: Job) -> Any:
    """Switch on what a user switches on for a dtype."""
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
    """What the device multiplies at best: square matrices, as large as it likes them."""

    def __init__(self, job: Job) -> None:
        precision(job)
        self._device, self._n = job.device, 1024 if job.device == "cpu" else 8192
        dtype = torch.bfloat16 if job.dtype == "bfloat16" else torch.float32
        self._a, self._b = torch.randn(2, self._n, self._n, device=job.device).to(dtype)
        self._out = torch.empty_like(self._a)

    def losses(self) -> dict[int, float]:
        """There are none, but it is warm behind it."""
        self.rate(0.2)
        return {}

    def rate(self, seconds: float) -> float:
        """FLOPs per second."""

        def some() -> float:
            for _ in range(10):
                torch.mm(self._a, self._b, out=self._out)
            if self._device != "cpu":
                torch.cuda.synchronize()  # the products take long enough to hide it
            return 10 * 2.0 * self._n**3

        return timed(some, seconds, self._device)


SIDES: dict[str, Callable[[Job], Side]] = {
    "ours": Ours,
    "eager": Plain,
    "compiled": partial(Plain, mode="default"),
    "compiled, graphs": partial(Plain, mode="reduce-overhead"),
    "vmap": Vmapped,
    "peak": Peak,
}


def side_of(job: Job) -> Side:
    """Make the side of a job ready."""
    if job.device == "cpu":
        torch.set_num_threads(job.threads)
    return SIDES[job.side](job)


def release(device: str) -> None:
    """Return the memory of a side that nobody holds any more."""
    gc.collect()
    give_back(torch.device(device))
