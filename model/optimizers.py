"""The optimizers, as rows of coefficients of one update rule.

    g  ← g + λ_coupled·θ
    m  ← a₁·m + b₁·g
    v  ← a₂·v + b₂·g²
    θ  ← θ − α·( (m/c₁) / (√(v/c₂) + ε  or 1) + λ·θ )

Because they are one rule, the slots of a stack may differ even in their optimizer. Clipping comes
before (`losses.clip_grads_`).

K = slots in a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.hyperparameters import Hyperparameters


class Coefficients(NamedTuple):
    """One row of the rule; each entry a number, or a tensor that broadcasts against θ."""

    learning_rate: Any  # α
    coupled: Any  # λ in the gradient
    decoupled: Any  # λ in the step
    a1: Any
    b1: Any
    c1: Any
    a2: Any
    b2: Any
    c2: Any
    eps: Any
    adaptive: Any  # 1: divide by √(v/c₂) + ε; 0: divide by 1


# The row of a slot that rests: nothing moves, and nothing is divided by zero.
IDLE = Coefficients(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def _sgd(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """θ ← θ − α·(g + λ·θ)."""
    return Coefficients(lr, h.weight_decay, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def _momentum(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Heavy ball without dampening: v ← γ·v + g; θ ← θ − α·v. Source: Polyak 1964."""
    return Coefficients(lr, h.weight_decay, 0.0, h.momentum, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def _adam(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Adam with λ in the gradient. Source: Kingma and Ba 2014, algorithm 1 (arXiv:1412.6980)."""
    return _adamw(step, lr, h)._replace(coupled=h.weight_decay, decoupled=0.0)


def _adamw(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Adam with λ in the step. Source: Loshchilov and Hutter 2017 (arXiv:1711.05101)."""
    c1, c2 = 1 - h.beta1**step, 1 - h.beta2**step
    return Coefficients(
        lr, 0.0, h.weight_decay, h.beta1, 1 - h.beta1, c1, h.beta2, 1 - h.beta2, c2, h.eps, 1.0
    )


OPTIMIZERS: Mapping[str, Callable[[int, float, Hyperparameters], Coefficients]] = {
    "adam": _adam,
    "adamw": _adamw,
    "momentum": _momentum,
    "sgd": _sgd,
}


def coefficients(step: int, learning_rate: float, h: Hyperparameters) -> Coefficients:
    """The row of one trial for update `step`, counted from 1, as Python numbers."""
    return OPTIMIZERS[h.optimizer](step, learning_rate, h)


def update(
    theta: Tensor, m: Tensor, v: Tensor, g: Tensor, c: Coefficients, decayed: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply the rule once.

    Args:
        theta: parameters, (K, ...), float32.
        m: running mean of the gradient, same shape.
        v: running mean of its square, same shape.
        g: gradient, already clipped, same shape; left unchanged.
        c: coefficients that broadcast against the parameters.
        decayed: λ touches the first so many elements of the last dimension; None for all.

    Returns:
        The new θ, m and v.
    """
    part = (..., slice(decayed))
    if _is_on(c.coupled):
        g = g.clone()
        g[part] += c.coupled * theta[part]
    m = c.a1 * m + c.b1 * g
    step = m / c.c1
    if _is_on(c.adaptive):
        v = c.a2 * v + c.b2 * (g * g)
        denominator = (v / c.c2).sqrt_().add_(c.eps)
        if isinstance(c.adaptive, Tensor):
            denominator = torch.where(c.adaptive > 0, denominator, 1.0)
        step /= denominator
    if _is_on(c.decoupled):
        step[part] += c.decoupled * theta[part]
    return theta - c.learning_rate * step, m, v


def _is_on(x: Any) -> bool:
    """False for the number 0. What is off for all slots is skipped, which changes no bits."""
    return isinstance(x, Tensor) or x != 0


def stack_rows(rows: np.ndarray, device: torch.device | str) -> Coefficients:
    """Coefficients of K slots as columns, (K, 1) float32, ready for θ of (K, P).

    A column that is zero for all slots becomes the number 0, and `adaptive` the number 1 where
    it is on for all, so that `update` can skip work without asking the device.

    Args:
        rows: (K, 11) float64, one `Coefficients` per slot.
        device: where θ lies.
    """
    columns = torch.from_numpy(rows.astype(np.float32)).to(device, non_blocking=True)
    values: list[Any] = list(columns.unsqueeze(-1).unbind(1))
    for index, column in enumerate(rows.T):
        if not column.any():
            values[index] = 0.0
    if rows[:, -1].all():
        values[-1] = 1.0
    return Coefficients(*values)


class AdamW(torch.optim.Optimizer):
    """AdamW over stacked parameters, with hyperparameters per slot.

    Args:
        params: tensors (K, ...), or torch's parameter groups.
        lr: α, a number or (K,).
        betas: (β1, β2), each a number or (K,).
        eps: ε, a number or (K,).
        weight_decay: λ, decoupled, a number or (K,); applies to every tensor given.

    Source: Loshchilov and Hutter 2017, algorithm 2 (arXiv:1711.05101).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-8,
        weight_decay: float | Tensor = 0.01,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_one(param, group)
        return loss

    def _step_one(self, param: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        state["step"] += 1

        def per_slot(x: float | Tensor) -> Any:
            """A number, or (K, 1, …, 1) in float64 so that 1−β keeps its digits."""
            if isinstance(x, Tensor):
                return x.detach().to(param.device).double().view(-1, *[1] * (param.dim() - 1))
            return x

        lr, eps, decay = map(per_slot, (group["lr"], group["eps"], group["weight_decay"]))
        beta1, beta2 = map(per_slot, group["betas"])
        row = Coefficients(
            lr, 0.0, decay,
            beta1, 1 - beta1, 1 - beta1 ** state["step"],
            beta2, 1 - beta2, 1 - beta2 ** state["step"],
            eps, 1.0,
        )  # fmt: skip
        c = Coefficients(*[x.to(param.dtype) if isinstance(x, Tensor) else x for x in row])
        m, v = state["exp_avg"], state["exp_avg_sq"]
        assert param.grad is not None
        theta, state["exp_avg"], state["exp_avg_sq"] = update(param, m, v, param.grad, c)
        param.copy_(theta)
