"""The rows of the update rule against torch.optim, or the published formula in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.network.losses import clip_grads_
from model.optimizers.layout import Layout
from model.optimizers.muon import orthogonalize
from model.optimizers.registry import OPTIMIZERS, coefficients
from model.optimizers.update_rule import IDLE, stack_rows, update
from model.spec.derive import derive
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.schedules import learning_rate

STEPS = 50

# A small model: two shapes of hidden matrices, a head, an embedding, gains; with padding.
SHAPES: dict[str, tuple[int, ...]] = {
    "layers.0.attn.q_proj.weight": (6, 4),
    "layers.0.ffn.w2.weight": (4, 6),
    "layers.1.attn.q_proj.weight": (6, 4),
    "lm_head.weight": (5, 4),
    "token_embeddings.weight": (5, 4),
    "layers.0.ln1.weight": (4,),
    "ln_final.weight": (4,),
}
WIDTH = 32  # of each in the row
OFFSETS = {name: WIDTH * number for number, name in enumerate(SHAPES)}
SIZE = WIDTH * len(SHAPES)
LAYOUT = Layout.of(SHAPES, OFFSETS, SIZE)

# Four slots that differ in every hyperparameter.
SLOTS: list[dict[str, Any]] = [
    {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "momentum": 0.9,
     "dampening": 0.0, "grad_clip": 1.0},
    {"beta1": 0.0, "beta2": 0.999, "eps": 1e-3, "weight_decay": 0.0, "momentum": 0.0,
     "dampening": 0.3, "grad_clip": 0.0, "trust_coefficient": 0.02},
    {"beta1": 0.5, "beta2": 0.9, "eps": 1e-6, "weight_decay": 1.0, "momentum": 0.5,
     "dampening": 0.5, "grad_clip": 3.0, "embedding_decay": 0.2, "gain_decay": 0.4,
     "trust_coefficient": 0.01},
    {"beta1": 0.99, "beta2": 0.0, "eps": 1e-2, "weight_decay": 0.01, "momentum": 0.95,
     "dampening": 0.95, "grad_clip": 0.5, "l1_penalty": 0.02, "trust_coefficient": 1.0},
]  # fmt: skip
RATES = (0.01, 0.003, 0.05, 0.002)

# formulas of the literature ----------------------------------------------------------------------


class Formula(torch.optim.Optimizer):
    """A published formula, one tensor at a time, where torch has none."""

    def __init__(self, groups: Any, rule: Callable[..., Tensor], h: Hyperparameters) -> None:
        super().__init__(groups, {"lr": 1.0, "weight_decay": 0.0})
        self._rule, self._h = rule, h

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
                state["t"] += 1
                assert p.grad is not None
                wd = group["weight_decay"]
                p.copy_(self._rule(p.clone(), p.grad, state, group["lr"], wd, self._h))


def lars(w: Tensor, g: Tensor, s: dict[str, Any], lr: float, wd: float, h: Any) -> Tensor:
    """You et al. 2017, algorithm 1."""
    local = h.trust_coefficient * w.norm() / (g.norm() + wd * w.norm())
    s["m"] = h.momentum * s["m"] + lr * local * (g + wd * w)
    return w - s["m"]


def lamb(w: Tensor, g: Tensor, s: dict[str, Any], lr: float, wd: float, h: Any) -> Tensor:
    """You et al. 2019, algorithm 2."""
    s["m"] = h.beta1 * s["m"] + (1 - h.beta1) * g
    s["v"] = h.beta2 * s["v"] + (1 - h.beta2) * g**2
    m, v = s["m"] / (1 - h.beta1 ** s["t"]), s["v"] / (1 - h.beta2 ** s["t"])
    u = m / (v.sqrt() + h.eps) + wd * w
    return w - lr * w.norm() / u.norm() * u


def lion(w: Tensor, g: Tensor, s: dict[str, Any], lr: float, wd: float, h: Any) -> Tensor:
    """Chen et al. 2023, program 1."""
    direction = torch.sign(h.beta1 * s["m"] + (1 - h.beta1) * g)
    s["m"] = h.beta2 * s["m"] + (1 - h.beta2) * g
    return w - lr * (direction + wd * w)


def muon(w: Tensor, g: Tensor, s: dict[str, Any], lr: float, wd: float, h: Any) -> Tensor:
    """Jordan et al. 2024 with the scale of Liu et al. 2025, in float64."""
    s["m"] = h.momentum * s["m"] + (1 - h.momentum) * g
    x = h.momentum * s["m"] + (1 - h.momentum) * g
    x = x / x.norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x - 4.775 * square @ x + 2.0315 * square @ square @ x
    return (1 - lr * wd) * w - 0.2 * max(w.shape) ** 0.5 * lr * x


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the hidden matrices, AdamW for the rest."""

    def __init__(self, groups: list[dict[str, Any]], h: Hyperparameters) -> None:
        super().__init__([{"params": [p for g in groups for p in g["params"]]}], {"lr": 1.0})
        rest = [{**g, "params": g["params"][-1:]} for g in groups if not g["hidden"]]
        self._parts = [
            Formula([g for g in groups if g["hidden"]], muon, h),
            torch.optim.AdamW(rest, 1.0, (h.beta1, h.beta2), h.eps),
        ]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self.param_groups[0]["lr"]
            part.step()


def sgd_from_zero(groups: Any, h: Hyperparameters) -> torch.optim.Optimizer:
    """torch's momentum with v₀ = 0 instead of v₁ = g; with γ = 0 it would ignore d."""
    optimizer = torch.optim.SGD(groups, 1.0, h.momentum or 1e-30, h.dampening)
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


REFERENCES: dict[str, Callable[[Any, Hyperparameters], torch.optim.Optimizer]] = {
    "sgd": lambda p, h: torch.optim.SGD(p, 1.0),
    "momentum": sgd_from_zero,
    "nesterov": lambda p, h: torch.optim.SGD(p, 1.0, h.momentum, nesterov=h.momentum > 0),
    "adagrad": lambda p, h: torch.optim.Adagrad(p, 1.0, eps=h.eps),
    "rmsprop": lambda p, h: torch.optim.RMSprop(p, 1.0, h.beta2, h.eps),
    "adam": lambda p, h: torch.optim.Adam(p, 1.0, (h.beta1, h.beta2), h.eps),
    "adamw": lambda p, h: torch.optim.AdamW(p, 1.0, (h.beta1, h.beta2), h.eps),
    # a fast ramp of torch's β1 is a constant β1
    "nadamw": lambda p, h: torch.optim.NAdam(
        p, 1.0, (h.beta1, h.beta2), h.eps, momentum_decay=1e9, decoupled_weight_decay=True
    ),
    "lars": lambda p, h: Formula(p, lars, h),
    "lamb": lambda p, h: Formula(p, lamb, h),
    "lion": lambda p, h: Formula(p, lion, h),
    "muon": MuonAndAdamW,
}

# running both ------------------------------------------------------------------------------------


def rows_of(optimizer: str, slot: int, schedule: str = "cosine") -> Hyperparameters:
    rate = {"max_learning_rate": RATES[slot], "learning_rate": RATES[slot]}
    values = {**SLOTS[slot], **rate, "optimizer": optimizer, "schedule": schedule}
    values |= {"total_steps": STEPS, "warmup_steps": 5}
    return derive(values, train_sequences=100, context_length=8)


def start(k: int, size: int = SIZE) -> Tensor:
    return torch.randn(k, size, generator=torch.Generator().manual_seed(1))


def start_row(k: int) -> Tensor:
    """Return initial values whose padding is zero."""
    theta, row = start(k), torch.zeros(k, SIZE)
    for name, shape in SHAPES.items():
        part = slice(OFFSETS[name], OFFSETS[name] + int(np.prod(shape)))
        row[:, part] = theta[:, part]
    return row


def gradient(step: int, theta: Tensor) -> Tensor:
    """Return gradients of a function that is neither convex nor smooth; slots differ in θ."""
    noise = torch.randn(
        theta.shape[-1], generator=torch.Generator().manual_seed(step), dtype=torch.float64
    )
    return torch.sin(3 * theta) + noise.to(theta.dtype) + 0.2 * theta


def row_gradient(step: int, theta: Tensor) -> Tensor:
    g = gradient(step, theta)
    for name, shape in SHAPES.items():
        g[..., OFFSETS[name] + int(np.prod(shape)) : OFFSETS[name] + WIDTH] = 0
    return g


def run_rule(hs: list[Hyperparameters], theta: Tensor) -> list[Tensor]:
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for step in range(1, STEPS + 1):
        rows = np.array([coefficients(step, learning_rate(step, h), h) for h in hs])
        g = row_gradient(step, theta)
        clip_grads_([g], torch.tensor([h.grad_clip or torch.inf for h in hs]))
        kept = g.clone()
        theta, m, v = update(theta, m, v, g, stack_rows(rows, "cpu"), LAYOUT)
        assert torch.equal(g, kept)
    return [theta, m, v]


def split(row: Tensor) -> Iterable[tuple[str, Tensor]]:
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        yield name, row[OFFSETS[name] :][:size].view(shape)


def decay_of(name: str, h: Hyperparameters) -> float:
    if name == "token_embeddings.weight":
        return h.embedding_decay
    return h.gain_decay if ".ln" in f".{name}" else h.weight_decay


def run_torch(h: Hyperparameters, row: Tensor) -> Tensor:
    """One slot in float64, tensor by tensor."""
    parameters = {n: torch.nn.Parameter(p.double().clone()) for n, p in split(row)}
    groups = [
        {"params": [p], "weight_decay": decay_of(n, h), "hidden": "layers" in n and p.dim() > 1}
        for n, p in parameters.items()
    ]  # fmt: skip
    optimizer = REFERENCES[h.optimizer](groups, h)
    exact = row.double()
    for step in range(1, STEPS + 1):
        for (_, g), p in zip(split(row_gradient(step, exact)), parameters.values(), strict=True):
            p.grad = g.clone()
        torch.nn.utils.clip_grad_norm_(parameters.values(), h.grad_clip or torch.inf)
        for name, p in parameters.items():
            assert p.grad is not None
            if name.endswith(("proj.weight", "w2.weight", "head.weight")):
                p.grad += h.l1_penalty * p.detach().sign()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, h)
        optimizer.step()
        for name, p in parameters.items():
            exact[OFFSETS[name] :][: p.numel()] = p.detach().flatten()
    return exact


# tests -------------------------------------------------------------------------------------------


def test_every_optimizer_is_in_the_symbol_table_and_has_a_reference() -> None:
    assert set(OPTIMIZERS) == set(REFERENCES) == set(SYMBOL_TABLE["optimizer"].choices)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_equals_its_reference(optimizer: str, schedule: str) -> None:
    """Fifty steps of four different slots, with clipping, warm-up and decay."""
    hs = [rows_of(optimizer, slot, schedule) for slot in range(4)]
    theta, _, _ = run_rule(hs, start_row(4))
    for slot, h in enumerate(hs):
        expected = run_torch(h, start_row(4)[slot])
        torch.testing.assert_close(theta[slot].double(), expected, rtol=1e-4, atol=2e-5)
        moved = (theta[slot] - start_row(4)[slot]).abs()
        assert all(part.max() > 1e-4 for _, part in split(moved))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_of_a_stack_equals_single_ones_bit_for_bit(optimizer: str) -> None:
    hs = [rows_of(optimizer, slot) for slot in range(4)]
    together = run_rule(hs, start_row(4))
    for slot, h in enumerate(hs):
        alone = run_rule([h], start_row(4)[slot : slot + 1])
        assert all(torch.equal(a[slot], b[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.slow
def test_optimizers_mixed_in_a_stack_equal_single_ones_bit_for_bit() -> None:
    hs = [rows_of(name, slot) for slot in range(4) for name in OPTIMIZERS]
    together = run_rule(hs, start_row(len(hs)))
    for slot, h in enumerate(hs):
        alone = run_rule([h], start_row(len(hs))[slot : slot + 1])
        assert all(torch.equal(a[slot], b[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("neighbour", OPTIMIZERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_ignores_that_of_its_neighbour(optimizer: str, neighbour: str) -> None:
    """Two slots: each term of the rule is on for one, both or none of them."""
    hs = [rows_of(optimizer, 2), rows_of(neighbour, 0)]
    together = run_rule(hs, start_row(2))
    alone = run_rule(hs[:1], start_row(2)[:1])
    assert all(torch.equal(a[0], b[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_idle_slot_keeps_weights_and_affects_no_slot(optimizer: str) -> None:
    h = rows_of(optimizer, 0)
    theta, m, v = start_row(2), start_row(2) * 0.1, start_row(2).abs()
    row = coefficients(3, 0.01, h)
    rows, g = np.array([IDLE, row]), gradient(1, theta)
    moved, _, _ = update(theta, m, v, g, stack_rows(rows, "cpu"), LAYOUT)
    assert torch.equal(moved[0], theta[0])
    single = stack_rows(np.array([row]), "cpu")
    alone, _, _ = update(theta[1:], m[1:], v[1:], g[1:], single, LAYOUT)
    assert torch.equal(moved[1], alone[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("part", ["weight_decay", "embedding_decay", "gain_decay", "l1_penalty"])
def test_decay_touches_its_part_only(optimizer: str, part: str) -> None:
    """The first update with a decay differs from one without in that part of the row only."""
    theta = start_row(1)
    zero = dict.fromkeys(("weight_decay", "embedding_decay", "gain_decay", "l1_penalty"), 0.0)
    moved = []
    for value in (0.0, 0.5):
        h = rows_of(optimizer, 0).model_copy(update={**zero, part: value, "eps": 0.1})
        row = coefficients(1, 0.1, h)._replace(
            gradient_trust=0.0, step_trust=0.0, muon=0.0, lion_g=0.0
        )
        z = torch.zeros_like(theta)
        c = stack_rows(np.array([row]), "cpu")
        moved.append(update(theta, z, z, row_gradient(1, theta), c, LAYOUT)[0][0])
    for (name, a), (_, b) in zip(split(moved[0]), split(moved[1]), strict=True):
        expected = {"token_embeddings.weight": "embedding_decay"}.get(name, "weight_decay")
        expected = "gain_decay" if ".ln" in f".{name}" else expected
        touched = part == expected or (part == "l1_penalty" and expected == "weight_decay")
        assert torch.equal(a, b) != touched, name


def test_trust_ratio_of_a_zero_tensor_or_gradient_is_one() -> None:
    """LARS moves it by the plain gradient, LAMB by the plain step; nothing divides by zero."""
    theta, g = start_row(1), row_gradient(1, start_row(1))
    theta[:, :WIDTH] = 0
    g[:, WIDTH : 2 * WIDTH] = 0
    for optimizer, size in (("lars", g[0, :24]), ("lamb", g[0, :24].sign())):
        h = rows_of(optimizer, 0).model_copy(update={"weight_decay": 0.0})
        c = stack_rows(np.array([coefficients(1, 0.1, h)]), "cpu")
        z = torch.zeros_like(theta)
        moved, _, _ = update(theta, z, z, g, c, LAYOUT)
        assert moved.isfinite().all()
        torch.testing.assert_close(moved[0, :24], -0.1 * size)
        assert torch.equal(moved[0, WIDTH : 2 * WIDTH], theta[0, WIDTH : 2 * WIDTH])


def test_layout_has_the_parts() -> None:
    assert LAYOUT.matrices == (slice(0, 4 * WIDTH),)
    assert LAYOUT.embeddings == (slice(4 * WIDTH, 5 * WIDTH),)
    assert LAYOUT.gains == (slice(5 * WIDTH, 7 * WIDTH),)
    assert LAYOUT.hidden == (((6, 4), (0, 2 * WIDTH), 1.0), ((4, 6), (WIDTH,), 1.0))
    assert [w.stop - w.start for w in LAYOUT.weights] == [24, 24, 24, 20]
    assert [t.stop - t.start for t in LAYOUT.tensors] == [WIDTH] * 7


def test_stack_rows_skips_what_is_off_for_all() -> None:
    rows = np.array([coefficients(1, 0.1, rows_of("adamw", slot)) for slot in (0, 2)])
    c = stack_rows(rows, "cpu")
    assert c.coupled == c.ahead_g == c.gradient_trust == c.muon == c.lion_g == c.l1 == 0.0
    assert c.adaptive == 1.0
    assert c.decoupled.tolist() == [[torch.tensor(0.1).item()], [1.0]]
    mixed = stack_rows(np.array([rows[0], IDLE]), "cpu")
    assert mixed.adaptive.tolist() == [[1.0], [0.0]]
    some = np.array([IDLE, coefficients(1, 0.1, rows_of("muon", 1)), IDLE])
    assert stack_rows(some, "cpu").muon.tolist() == [[0.0], [1.0], [0.0]]


# Muon --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (24, 6), (6, 24), (1, 5)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(x))
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.equal(orthogonalize(torch.zeros(1, *shape)), torch.zeros(1, *shape))


@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32), (12, 20), (192, 64)])
def test_orthogonalize_of_a_batch_equals_single_ones_bit_for_bit(shape: tuple[int, int]) -> None:
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
    for size in (2, 3, 8, 16):
        together = orthogonalize(x[:size])
        for number in range(size):
            assert torch.equal(together[number], orthogonalize(x[number : number + 1])[0])


def test_muon_equals_torch_as_far_as_bfloat16_allows() -> None:
    """torch iterates in bfloat16; ours agrees to its precision, over some steps."""
    h = rows_of("muon", 0, "constant").model_copy(update={"warmup_steps": 0})
    theta = start_row(1)
    name = "layers.0.attn.q_proj.weight"
    p = torch.nn.Parameter(dict(split(theta[0]))[name].clone())
    theirs = torch.optim.Muon([p], 0.02, h.weight_decay, h.momentum, adjust_lr_fn="match_rms_adamw")
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for step in range(1, 6):
        g = row_gradient(step, start_row(1))
        p.grad = dict(split(g[0]))[name].clone()
        theirs.step()
        rows = np.array([coefficients(step, 0.02, h)])
        theta, m, v = update(theta, m, v, g, stack_rows(rows, "cpu"), LAYOUT)
    moved = dict(split(theta[0] - start_row(1)[0]))[name]
    expected = p.detach() - dict(split(start_row(1)[0]))[name]
    assert (moved - expected).norm() < 0.02 * expected.norm()
