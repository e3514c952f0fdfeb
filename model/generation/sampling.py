"""Which token comes next: filters of the logits, and a keyed draw from what they leave.

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
    """Make tokens that were seen less probable (penalty above 1) or more.

    Args:
        logits: (R, V).
        seen: (R, V) bool.
        penalty: above 0.

    Source: Keskar et al. 2019, section 4.1 (arXiv:1909.05858); negative logits as in transformers.
    """
    changed = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, changed, logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """−∞ but for the k largest of each row, and what equals the last of them.

    Source: Fan et al. 2018, section 5.4 (arXiv:1805.04833).
    """
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, -1).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """−∞ but for the fewest largest of each row whose probabilities sum up to at least p.

    Source: Holtzman et al. 2019, section 3.1 (arXiv:1904.09751).
    """
    rising, order = logits.sort(-1)
    below = rising.softmax(-1).cumsum(-1)  # probability of a token and all that are less probable
    is_cut = below <= 1 - p
    is_cut[:, -1] = False
    return logits.masked_fill(is_cut.scatter(-1, order, is_cut), -math.inf)


def filtered(logits: Tensor, seen: Tensor, settings: GenerationSettings) -> Tensor:
    """What a token is drawn from, as logits: (R, V) float64 on the CPU.

    In the order of transformers: repetition, temperature, top-k, top-p. At temperature 0 the
    others have no effect.
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


class Dice:
    """Keyed draws: a function of the seed, the number of a text, and how many tokens it has.

    What a trial writes therefore depends neither on its neighbours nor on who else writes.

    Args:
        seed: of all.
        numbers: of each row's text, (R,): rows of one number throw the same dice.
    """

    def __init__(self, seed: int, numbers: Sequence[int]) -> None:
        keys = [derive_key(seed, "generate", number) for number in numbers]
        self._keys = np.array(keys, np.uint64)

    def throw(self, place: int) -> Tensor:
        """A number in [0, 1) for each row and the token at some place: (R,) float64."""
        bits = mix64(self._keys ^ np.uint64(place))
        return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def draw(logits: Tensor, thrown: Tensor) -> Tensor:
    """One token of each row, by its probability.

    Args:
        logits: (R, V) float64.
        thrown: (R,) in [0, 1), where in the cumulated probabilities.

    Returns:
        (R,) int64.
    """
    cumulated = logits.softmax(-1).cumsum(-1)
    total = cumulated[:, -1:]
    found = (cumulated <= thrown.unsqueeze(-1) * total).sum(-1)
    # a product that is rounded up to the total finds no token: then it is the last of some
    # probability
    return torch.minimum(found, (cumulated < total).sum(-1))


def choose(logits: Tensor, settings: GenerationSettings, dice: Dice, place: int) -> Tensor:
    """The next token of each row, (R,) int64, from filtered logits (R, V)."""
    if settings.temperature == 0:
        return logits.argmax(-1)
    return draw(logits, dice.throw(place))
