"""Rules by which hyperparameters follow the batch size and the number of training tokens.

κ = B of the proxy / B of the target, δ = tokens of the proxy / tokens of the target.
"""

from __future__ import annotations

import math

from model.spec.hyperparameters import Hyperparameters
from model.spec.target import Target

_BJORCK = -0.32  # α ∝ tokens^-0.32
_RATES = ("learning_rate", "max_learning_rate", "min_learning_rate", "noam_factor")
_DECAYS = ("weight_decay", "embedding_decay", "gain_decay")


def trained(h: Hyperparameters, target: Target | None) -> Hyperparameters:
    """Return the hyperparameters that a proxy trains with; those of other models are unchanged.

    batch_rule `sqrt`: α·√κ, ε/√κ, 1 − β ·κ for both β, which keeps the noise of Adam's steps per
    token (Malladi et al. 2022, arXiv:2205.10287, definition 5).

    tokens_rule `bjorck`: α·δ^-0.32 at a fixed batch size (Bjorck et al. 2024, arXiv:2409.19913).

    tokens_rule `timescale`: λ so that α·λ·tokens/B is kept, the training in units of the decay's
    time (Wang and Aitchison 2024, arXiv:2405.13698).

    Args:
        h: hyperparameters with the values of the target; B and T_total are the proxy's own.
        target: the target of the proxy; None for a model that is none.
    """
    if target is None or (target.batch_rule, target.tokens_rule) == ("off", "off"):
        return h
    rate, decay, changes = 1.0, 1.0, {}
    if target.batch_rule == "sqrt":
        root = math.sqrt(target.batch)
        rate *= root
        changes["eps"] = h.eps / root
        for name in ("beta1", "beta2"):
            changes[name] = 1 - target.batch * (1 - getattr(h, name))
    if target.tokens_rule == "bjorck":
        rate *= target.tokens**_BJORCK
    if target.tokens_rule == "timescale":
        decay = target.batch / (rate * target.tokens)
    changes |= {name: rate * getattr(h, name) for name in _RATES}
    changes |= {name: decay * getattr(h, name) for name in _DECAYS}
    # not validated: the values of the target are in their ranges, and those of a proxy need not be
    return h.model_copy(update=changes)
