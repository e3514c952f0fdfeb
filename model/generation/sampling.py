"""Sampling of the next token: filters of the logits, and a keyed draw from the rest.

R = rows, one for each sequence; V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.generation.settings import GenerationSettings
from model.keys import derive_key
from model.randomness import mix64


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that a text already contains less (penalty above 1) or more probable.

    Args:
        logits: (R, V).
        seen: (R, V) bool, True for tokens of the text.
        penalty: above 0; 1 changes nothing.

    Source: Keskar et al. 2019, section 4.1 (arXiv:1909.05858); negative logits as in transformers.
    """
    changed = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, changed, logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Set all logits to −∞ except the k largest of each row, and those equal to the k-th.

    Source: Fan et al. 2018, section 5.4 (arXiv:1805.04833).
    """
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, -1).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Set all logits to −∞ except the fewest whose probabilities sum up to at least p.

    Source: Holtzman et al. 2019, section 3.1 (arXiv:1904.09751).
    """
    ascending, order = logits.sort(-1)
    below = ascending.softmax(-1).cumsum(-1)  # probability of a token and all less probable ones
    is_cut = below <= 1 - p
    is_cut[:, -1] = False
    return logits.masked_fill(is_cut.scatter(-1, order, is_cut), -math.inf)


def filtered(logits: Tensor, seen: Tensor, settings: GenerationSettings) -> Tensor:
    """Return the logits from which a token is drawn, (R, V) float64 on the CPU.

    The filters have the order of transformers: repetition, temperature, top-k, top-p. At
    temperature 0, top-k and top-p have no effect.
    """
    logits = logits.to("cpu", torch.float64)
    if settings.repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, settings.repetition_penalty)
    if settings.temperature == 0:
        return logits
    logits = logits / settings.temperature
    if settings.top_k:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    return logits


class RandomStream:
    """Uniform random numbers keyed by a seed, the number of a text, and the place of a token.

    The text of a trial therefore depends neither on its neighbours nor on other texts.

    Args:
        seed: of all rows.
        numbers: number of each row's text, (R,): rows of equal numbers draw equal values.
    """

    def __init__(self, seed: int, numbers: Sequence[int]) -> None:
        keys = [derive_key(seed, "generate", number) for number in numbers]
        self._keys = np.array(keys, np.uint64)

    def uniform(self, place: int) -> Tensor:
        """Draw a number in [0, 1) for each row and the token at `place`: (R,) float64."""
        bits = mix64(self._keys ^ np.uint64(place))
        return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token for each row by its probability, by inverting the cumulative distribution.

    Args:
        logits: (R, V) float64.
        uniform: random numbers, (R,) in [0, 1).

    Returns:
        (R,) int64.
    """
    cumulative = logits.softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    drawn = (cumulative <= uniform.unsqueeze(-1) * total).sum(-1)
    # A product that is rounded up to the total lies behind all tokens: then the draw is the last
    # token with a probability above 0.
    return torch.minimum(drawn, (cumulative < total).sum(-1))


def choose(
    logits: Tensor, settings: GenerationSettings, stream: RandomStream, place: int
) -> Tensor:
    """Choose the next token of each row, (R,) int64, from filtered logits (R, V)."""
    if settings.temperature == 0:
        return logits.argmax(-1)
    return draw(logits, stream.uniform(place))
