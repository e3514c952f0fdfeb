"""Registry of the optimizers; each is a function that returns a row of coefficients.

`update_rule` describes the rule and its coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.optimizers.update_rule import IDLE, Coefficients
from model.spec.hyperparameters import Hyperparameters


def _coupled(row: Coefficients, h: Hyperparameters) -> Coefficients:
    """Add the decays λ to the gradient: an L2 penalty of the loss."""
    return row._replace(
        coupled=h.weight_decay,
        coupled_embeddings=h.embedding_decay,
        coupled_gains=h.gain_decay,
        l1=h.l1_penalty,
    )


def _decoupled(row: Coefficients, h: Hyperparameters) -> Coefficients:
    """Add the decays λ to the step, decoupled from the gradient."""
    return row._replace(
        decoupled=h.weight_decay,
        decoupled_embeddings=h.embedding_decay,
        decoupled_gains=h.gain_decay,
        l1=h.l1_penalty,
    )


def _sgd(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """θ ← θ − α·(g + λ·θ)."""
    return _coupled(IDLE._replace(learning_rate=lr, b1=1.0), h)


def _momentum(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Heavy ball: v ← γ·v + (1−d)·g; θ ← θ − α·v, v₀ = 0, λ in the gradient.

    d = 0 is v = γ·v + g, and d = γ is the running mean v = γ·v + (1−γ)·g. torch starts with
    v₁ = g instead, for every d. Source: Polyak 1964.
    """
    return _sgd(step, lr, h)._replace(a1=h.momentum, b1=1 - h.dampening)


def _nesterov(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Nesterov: v ← γ·v + g; θ ← θ − α·(g + γ·v), λ in the gradient.

    The form of Sutskever et al. 2013 with the momentum step first, as in torch.
    """
    return _sgd(step, lr, h)._replace(a1=h.momentum, ahead_m=h.momentum, ahead_g=1.0)


def _adagrad(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """AdaGrad: v ← v + g²; θ ← θ − α·g/(√v + ε), λ in the gradient.

    ε outside the root and v₀ = 0, as published and in torch; Ruder 2016 and others put ε inside.
    Source: Duchi et al. 2011, figure 1, the diagonal form.
    """
    return _sgd(step, lr, h)._replace(a2=1.0, b2=1.0, eps=h.eps, adaptive=1.0)


def _rmsprop(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """RMSProp: v ← β2·v + (1−β2)·g²; θ ← θ − α·g/(√v + ε), λ in the gradient.

    ε outside the root, not centred, without momentum and bias correction, as torch's defaults;
    TensorFlow puts ε inside. Source: Tieleman and Hinton 2012, lecture 6.5.
    """
    return _sgd(step, lr, h)._replace(a2=h.beta2, b2=1 - h.beta2, eps=h.eps, adaptive=1.0)


def _adam(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Adam with λ in the gradient. Source: Kingma and Ba 2014, algorithm 1 (arXiv:1412.6980)."""
    return _coupled(_moments(step, lr, h), h)


def _adamw(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Adam with λ in the step. Source: Loshchilov and Hutter 2017 (arXiv:1711.05101)."""
    return _decoupled(_moments(step, lr, h), h)


def _moments(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Adam's running means with their bias corrections, ε outside the root."""
    c1, c2 = 1 - h.beta1**step, 1 - h.beta2**step
    return Coefficients(
        lr, 0.0, 0.0, h.beta1, 1 - h.beta1, c1, h.beta2, 1 - h.beta2, c2, h.eps, 1.0, updates=step
    )


def _nadamw(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """AdamW with Nesterov's look-ahead: m̂ = β1·m/(1−β1^(t+1)) + (1−β1)·g/(1−β1^t).

    β1 is constant, as in optax and AlgoPerf; torch's NAdam raises it over the first thousands of
    updates. Source: Dozat 2016, algorithm 2, with λ in the step.
    """
    row = _adamw(step, lr, h)
    after = 1 - h.beta1 ** (step + 1)
    return row._replace(ahead_m=h.beta1 * row.c1 / after, ahead_g=(1 - h.beta1) / row.c1)


def _lars(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """LARS: v ← γ·v + α·r·(g + λ·θ); θ ← θ − v, r = η·‖θ‖/(‖g‖ + λ·‖θ‖) per tensor.

    The rate and the ratio are inside the mean, as published; others multiply the mean by them.
    Every tensor has its ratio, gains included. Source: You et al. 2017, section 4 and algorithm 1
    (arXiv:1708.03888).
    """
    row = _sgd(step, 1.0, h)
    return row._replace(a1=h.momentum, b1=lr, gradient_trust=h.trust_coefficient)


def _lamb(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """AdamW whose step of each tensor is scaled to the norm of the tensor: θ ← θ − α·‖θ‖/‖u‖·u.

    Source: You et al. 2019, algorithm 2 with φ(x) = x (arXiv:1904.00962).
    """
    return _adamw(step, lr, h)._replace(step_trust=1.0)


def _lion(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """θ ← θ − α·(sign(β1·m + (1−β1)·g) + λ·θ); m ← β2·m + (1−β2)·g.

    Source: Chen et al. 2023, program 1 (arXiv:2302.06675).
    """
    row = _decoupled(IDLE._replace(learning_rate=lr, a1=h.beta2, b1=1 - h.beta2), h)
    return row._replace(lion_m=h.beta1, lion_g=1 - h.beta1)


def _muon(step: int, lr: float, h: Hyperparameters) -> Coefficients:
    """Orthogonal momentum for the matrices inside the blocks, AdamW for all others.

    Source: Jordan et al. 2024, scaled as by Liu et al. 2025 (arXiv:2502.16982).
    """
    row = _adamw(step, lr, h)
    return row._replace(muon_m=h.momentum, muon_g=1 - h.momentum, muon=1.0)


OPTIMIZERS: Mapping[str, Callable[[int, float, Hyperparameters], Coefficients]] = {
    "adagrad": _adagrad,
    "adam": _adam,
    "adamw": _adamw,
    "lamb": _lamb,
    "lars": _lars,
    "lion": _lion,
    "momentum": _momentum,
    "muon": _muon,
    "nadamw": _nadamw,
    "nesterov": _nesterov,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}


def coefficients(step: int, learning_rate: float, h: Hyperparameters) -> Coefficients:
    """Return the row of coefficients of one trial, as Python numbers.

    Args:
        step: updates that the moments have seen, including this one.
        learning_rate: α_t.
        h: hyperparameters of the trial.
    """
    row = OPTIMIZERS[h.optimizer](step, learning_rate, h)
    factor = h.lora_b_rate_factor
    return row if factor == 1 else row._replace(lora_b=factor)
