"""The loss that the best settings reach, as a function of size, budget and text.

    L = E_t + ((A_t·(N/N₀)^−a)^(1/b) + (B_t·(D/D₀)^−c)^(1/b))^b

with N all weights, of embeddings and head, too, and D the training tokens, N₀ and D₀ those of
`CENTRE`. Without E it is the law of Kaplan et al. 2020 (arXiv:2001.08361, equation 1.5), and with
b = 1 that of Hoffmann et al. 2022 (arXiv:2203.15556); with b < 1 tokens help a small model less.
N is counted as by Pearce and Song 2024 (arXiv:2406.12907): small models are mostly embeddings. The
exponents are common to all texts; each text has an E, A and B of its own around common ones, all
partially pooled: a text with one size gets the exponents of the others, and a text without any
trial a wide interval.

C = cells, T = texts, the asked one among them, P = parameters, S = draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tuner.knowledge.laplace import Normal, fit
from tuner.knowledge.settings import CENTRE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# log E, log A, log B, log a, log c, log b: means and deviations of what is common to all texts
_MEANS = np.log([1.5, 1.0, 1.0, 0.25, 0.35, 0.7])
_DEVIATIONS = np.array([0.4, 0.7, 0.7, 0.5, 0.5, 0.5])
_TEXTS = (0.3, 0.25, 0.25)  # deviations of log E, log A and log B between texts
_MISFIT = 0.01  # of a log loss: what no law of this form has
_COMMON = 6


class Levels:
    """The fitted law.

    Args:
        losses: lowest log loss of each cell, (C,).
        deviations: of these, (C,).
        sizes: log of all weights and log tokens of the cells, (C, 2).
        texts: text of each cell.
        target_text: text that is asked for.
    """

    def __init__(
        self, losses: Floats, deviations: Floats, sizes: Floats, texts: list[str], target_text: str
    ) -> None:
        names = [*dict.fromkeys(texts), target_text or "\0"]  # "\0" is nobody's
        self._numbers = {name: number for number, name in reversed(list(enumerate(names)))}
        self._sizes = sizes - CENTRE
        self._index = np.array([self._numbers[text] for text in texts], dtype=np.int64)
        self._target = self._numbers[names[-1]]
        count = len(self._numbers) if target_text in texts else len(names)
        prior_deviations = np.concatenate([_DEVIATIONS, np.tile(_TEXTS, count)])
        means = np.concatenate([_MEANS, np.zeros(3 * count)])
        noise = np.hypot(deviations, _MISFIT)
        self._posterior = fit(
            self._model, losses, noise, Normal(means, np.diag(prior_deviations**-2.0))
        )

    def _model(self, p: Floats) -> tuple[Floats, Floats]:
        """Return log losses of the cells (C,) and their derivatives (C, P)."""
        return _losses(p, self._sizes, self._index)

    def draws(self, size: Floats, count: int, seed: int) -> Floats:
        """Return the log loss at a size of the target's text: the mode, then draws, (S,).

        The loss is linear in the draws around the mode: E, A and B are known much less than the
        losses of which they are the sum, and far draws of them would fit no cell.

        Args:
            size: log of all weights and log tokens, (2,).
            count: S.
            seed: seed of the draws.
        """
        mode = self._posterior.mean
        loss, gradient = _losses(mode, (size - CENTRE)[None], np.array([self._target]))
        moves = (self._posterior.draws(count, seed) - mode) @ gradient[0]
        misfit = _MISFIT * np.random.default_rng(seed + 1).standard_normal(count)
        misfit[0] = 0
        return np.asarray(loss[0] + moves + misfit)


def _losses(p: Floats, sizes: Floats, texts: Ints) -> tuple[Floats, Floats]:
    """Return log losses (m,) and their derivatives (m, P).

    Args:
        p: parameters, (P,).
        sizes: log N/N₀ and log D/D₀, (m, 2).
        texts: number of the text of each, (m,).
    """
    logs = p[:3] + p[_COMMON:].reshape(-1, 3)[texts]
    exponents, b = np.exp(p[3:5]), np.exp(p[5])
    falls = -exponents * sizes
    parts = logs[:, 1:] + falls  # logs of both terms
    total = np.logaddexp(*(parts / b).T)
    shares = np.exp(parts / b - total[:, None])  # ∂ log of the sum / ∂ log of a term
    constant, reducible = np.exp(logs[:, 0]), np.exp(b * total)
    loss = constant + reducible
    slopes = (reducible / loss)[:, None] * shares
    jacobian = np.zeros((len(sizes), len(p)))
    jacobian[:, 0] = constant / loss
    jacobian[:, 1:3] = slopes
    jacobian[:, 3:5] = slopes * falls
    jacobian[:, 5] = reducible / loss * (b * total - (shares * parts).sum(1))
    rows = np.arange(len(sizes))
    for term in range(3):
        jacobian[rows, _COMMON + 3 * texts + term] = jacobian[:, term]
    return np.log(loss), jacobian
