"""AdamW as a torch optimizer over stacked parameters: the public API of the update rule.

K = slots in a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from model.device.precision import exact_device
from model.optimizers.update_rule import Coefficients, update


class AdamW(torch.optim.Optimizer):
    """AdamW over stacked parameters, with hyperparameters per slot.

    Args:
        params: tensors (K, ...), or torch's parameter groups.
        lr: α, a number or (K,).
        betas: (β1, β2), each a number or (K,).
        eps: ε, a number or (K,).
        weight_decay: λ, decoupled, a number or (K,); applies to every parameter.

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
        """Update every parameter that has a gradient.

        Args:
            closure: recomputes the loss with its gradients.

        Returns:
            The closure's loss; None without a closure.
        """
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
            """Return a number, or (K, 1, …, 1) in float64 so that 1−β keeps its digits."""
            if isinstance(x, Tensor):
                exact = x.detach().to(exact_device(param.device))
                return exact.double().view(-1, *[1] * (param.dim() - 1))
            return x

        lr, eps, decay = map(per_slot, (group["lr"], group["eps"], group["weight_decay"]))
        beta1, beta2 = map(per_slot, group["betas"])
        row = Coefficients(
            lr, 0.0, decay,
            beta1, 1 - beta1, 1 - beta1 ** state["step"],
            beta2, 1 - beta2, 1 - beta2 ** state["step"],
            eps, 1.0,
        )  # fmt: skip
        c = Coefficients(*[x.to(param) if isinstance(x, Tensor) else x for x in row])
        m, v = state["exp_avg"], state["exp_avg_sq"]
        assert param.grad is not None
        theta, state["exp_avg"], state["exp_avg_sq"] = update(param, m, v, param.grad, c)
        param.copy_(theta)
