"""Factors by which a proxy is initialized and trained, so that its optima are its target's.

Width follows μP (Yang et al. 2022, arXiv:2203.03466, table 8) and depth CompleteP with α = 1 (Dey
et al. 2025, arXiv:2505.01618, table 1), with the target as the base: all ratios below are
proxy / target, at most 1 for a smaller proxy. For each tensor,

    m = ratio of the fan-ins, n = ratio of the fan-outs, w = ratio of d_model,
    ℓ = ratio of the blocks of its tower, d = ratio of d_head, h = ratio of the heads.

    tensor            std of the init      α       αλ        ε            forward pass
    hidden matrix     √(2/(i₀+o₀))·m^-½    m⁻¹     m^(e−1)   n⁻¹ℓ⁻¹       branch·ℓ⁻¹
    gain of a block   –                    –       –         w⁻¹ℓ⁻¹
    gain of q, k      –                    –       –         d⁻¹ℓ⁻¹       queries·d^-½
    bias of a matrix  –                    –       –         n⁻¹ℓ⁻¹
    final gain        –                    –       –         w⁻¹
    embedding         –                    –       –         w⁻¹
    relative bias     √(2/(32+H₀))         –       –         h⁻¹
    head              √(2/(d_model₀+V))    –       –         w⁻¹          logits·w⁻¹

i₀, o₀ and H₀ are sizes of the target: the init of the target is the usual one. The factor of a
branch scales the bias of its last matrix alike.

Derivations. All activations are Θ(1) per number, whatever the width; matrices after the first
updates have a part that is aligned with their inputs.

* Scores are q·k/√d_head in the target. After alignment q·k grows as d_head, so the scores of the
  proxy must be divided by d_head: √d_head₀/d_head = d_head^-½·d^-½, which is the factor of the
  queries. If d_head is kept, d = 1.
* ε must scale as the gradients, of which Adam takes the ratio m̂/(√v̂ + ε). The head multiplies its
  input by w⁻¹, and its weights are Θ(1): a number of the gradient of the residual stream is Θ(w⁻¹),
  at any depth. So is that of the head's own gradient (w⁻¹·x), of the embeddings and final gains.
  The gradient of the output of a matrix in a branch is Θ(ℓ⁻¹·n⁻¹): the residual stream's for
  n = w, and for a matrix inside of a branch the sum over w·d_model₀ outputs of the next matrix,
  aligned with Θ(1/fan_in) numbers of it, of which the fan-in is this fan-out. Its input is Θ(1), so
  its gradient is Θ(ℓ⁻¹n⁻¹). CompleteP's equation 40 has one ratio of all widths for n; here d_ff is
  rounded. A gain is a sum over the outputs of the next
  matrix: Θ(ℓ⁻¹w⁻¹); gains of queries and keys are sums over H heads too: Θ(ℓ⁻¹·(dh)⁻¹·h), which is
  constant in width if heads are kept wide, as in arXiv:2512.22382. The relative bias is a sum over
  all ℓ blocks, per head.
* The bias of a matrix is added to its output, and has the gradient of that.
* AdamW's step is Θ(1) per number; α·m⁻¹ makes the change of an output, a sum over the fan-in,
  Θ(1). At e = 1 the decay α·λ of an update is kept, which is λ·m, since decay over a training of
  fixed length is the product over updates.
* Muon's step has singular values of 0.2·√max(i, o). The change of an output is Θ(1) if they are
  Θ(√(o/i)) (arXiv:2310.17813), so α is multiplied by √(n/m)·√(max(i₀, o₀)/max(i, o)): m^-½ where
  all widths have one ratio. AdamW's α·m⁻¹ obeys the same condition: a step of rank one with numbers
  of m⁻¹ has the singular value m⁻¹·√(io), and its ratio is √(n/m).
* The clipping norm τ stays: gradients of hidden matrices have i·o numbers of Θ(1/(n·ℓ)), so their
  norm is constant in width, and shrinks with the depth as ℓ^-½.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from model.spec.architecture import Architecture, parameter_shapes
from model.spec.choices import Tower
from model.spec.parameter_names import is_decayed


@dataclass(frozen=True)
class Multipliers:
    """Initial scale of one tensor, and its factors in the update.

    Attributes:
        initial_std: standard deviation of the initial weights; None for the usual one.
        rate: factor of α.
        decay: factor of λ. The step subtracts α·λ, so `rate` multiplies it as well.
        eps: factor of ε.
        muon: factor of Muon's step, besides `rate`; 1 for tensors that Muon leaves to AdamW.
    """

    initial_std: float | None = None
    rate: float = 1.0
    decay: float = 1.0
    eps: float = 1.0
    muon: float = 1.0


PLAIN = Multipliers()  # of a tensor of a model without a target


@lru_cache(maxsize=64)
def multipliers(a: Architecture) -> Mapping[str, Multipliers]:
    """Return the multipliers of each tensor, in the order of `parameter_shapes`.

    Empty for a model without a target.
    """
    if a.target is None:
        return {}
    base = a.target_architecture
    base_shapes = parameter_shapes(base)
    return {
        name: _of_tensor(name, shape, base_shapes[_counterpart(name)], a, base)
        for name, shape in parameter_shapes(a).items()
    }


def initial_std(a: Architecture, name: str) -> float | None:
    """Return the standard deviation of a tensor's initial weights; None for the usual one.

    A tied head without a factor multiplies with the embeddings themselves: these begin at
    1/√d_model, of the target for a proxy, so that the logits begin as with the factor.
    """
    if a.tied_embeddings and not a.scaled_head and "_embeddings." in name:
        return 1 / math.sqrt(a.target.d_model if a.target else a.d_model)
    return multipliers(a).get(name, PLAIN).initial_std


def branch_multiplier(a: Architecture, tower: Tower) -> float:
    """Return the factor of what the branches of a tower add to the residual stream, ℓ⁻¹."""
    return 1.0 if a.target is None else 1 / _depth(tower.prefix, a, a.target_architecture)


def query_multiplier(a: Architecture) -> float:
    """Return the factor of the queries, d^-½."""
    return 1.0 if a.target is None else math.sqrt(a.target_architecture.d_head / a.d_head)


def logit_multiplier(a: Architecture) -> float:
    """Return the factor of the logits, w⁻¹."""
    return 1.0 if a.target is None else a.target.d_model / a.d_model


def _of_tensor(
    name: str,
    shape: tuple[int, ...],
    base_shape: tuple[int, ...],
    a: Architecture,
    base: Architecture,
) -> Multipliers:
    width = a.d_model / base.d_model
    is_in_block = "layers." in name
    depth = _depth(name.partition("layers.")[0], a, base) if is_in_block else 1.0
    if name.endswith("relative_bias.weight"):
        heads = a.n_heads / base.n_heads
        return Multipliers(initial_std=_glorot(base_shape), eps=1 / heads)
    if name == "lm_head.weight":
        return Multipliers(initial_std=_glorot(base_shape), eps=1 / width)
    if not is_decayed(name):  # embeddings, gains, biases
        is_of_heads = "_norm." in name
        size = a.d_head / base.d_head if is_of_heads else width
        if name.endswith("_proj.bias") or ".ffn." in name:
            size = shape[0] / base_shape[0]
        return Multipliers(eps=1 / (size * depth))
    fan_out, fan_in = shape[0] / base_shape[0], shape[1] / base_shape[1]
    muon = math.sqrt(fan_out / fan_in) * math.sqrt(max(base_shape) / max(shape))
    exponent = a.target.decay_exponent if a.target else 1.0
    return Multipliers(
        initial_std=_glorot(base_shape) / math.sqrt(fan_in),
        rate=1 / fan_in,
        decay=fan_in**exponent,
        eps=1 / (fan_out * depth),
        muon=muon * fan_in,
    )


def _glorot(shape: tuple[int, ...]) -> float:
    """Return the usual standard deviation; Glorot and Bengio 2010, equation 16."""
    return math.sqrt(2 / sum(shape))


def _depth(prefix: str, a: Architecture, base: Architecture) -> float:
    """Return the ratio of the blocks of the tower with a prefix."""
    if prefix == a.decoder.prefix:
        return a.n_layers / base.n_layers
    return a.n_encoder_layers / base.n_encoder_layers


def _counterpart(name: str) -> str:
    """Return the name of the target's tensor; all blocks of a tower have equal shapes."""
    tower, layers, rest = name.partition("layers.")
    return f"{tower}layers.0.{rest.partition('.')[2]}" if layers else name
