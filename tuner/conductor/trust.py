"""Whether the first trials of a search bear out what earlier searches proposed.

The proposals are compared with the defaults and the first trials that the sampler drew without any
prior, by the losses of all after their first reports, which every trial makes. Two hypotheses:

    the sources hold   each proposal is as good as the best of θ random configurations
    they mislead       proposals are random configurations like the others

θ = 1/(1 − confidence)²: 4 at medium, 16 at high confidence. Only the order of the losses counts, so
that neither their scale nor their distribution matters. If a random configuration is better than x
with probability F(x), the first hypothesis gives 1 − (1 − F(x))^θ for proposals (a Lehmann
alternative; Savage 1956, doi:10.1214/aoms/1177728178), and the probability of an order is Cox's
partial likelihood: from the best on, each trial comes next with probability w/Σw over the trials
that are left, where w is θ for a proposal and 1 for others.

Trust is lost when the ratio of the probabilities, mislead : hold, reaches 10. The orders of more
and more trials are nested, so the ratio is a martingale if the sources hold, and by Ville's
inequality they lose trust with probability at most 1/10, however often one looks. Limits: losses
after one report rank long warm-ups badly; the defaults count as one random configuration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.conductor.trial import Trial
from tuner.samplers.priors import asks_prior
from tuner.samplers.tpe import STARTUP
from tuner.space.first_draws import first_draws
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.space import SearchSpace

DEFAULTS = 0  # number of the trial with the defaults, unless `search.defaults` is off
# True to race the defaults, `search.defaults: full`, of a search whose sources propose draws
RACES_DEFAULTS = False
_RATIO = 10.0  # trust is lost when misleading sources explain the order so many times better


def strength(confidence: float) -> float:
    """Return θ: proposals should be as good as the best of so many random configurations."""
    return 1 / (1 - confidence) ** 2


def log_ratio(losses: Sequence[tuple[float, bool]], theta: float) -> float:
    """Return log P(order | the sources mislead) − log P(order | they hold).

    Args:
        losses: loss of each trial, infinity if it diverged, and True for a proposal.
        theta: strength of the sources if they hold.
    """
    ratio, proposed = 0.0, sum(is_proposed for _, is_proposed in losses)
    left = len(losses)
    for loss, is_proposed in sorted(losses):
        if math.isinf(loss):  # the order of diverged trials is unknown
            break
        weights = theta * proposed + left - proposed
        ratio += math.log(weights / left) - (math.log(theta) if is_proposed else 0.0)
        left, proposed = left - 1, proposed - is_proposed
    return ratio


class Trust:
    """The trust in the proposals of a search, a function of the first reports in their order.

    Args:
        space: space of the search.
        proposals: what earlier searches propose.

    Attributes:
        never_stopped: numbers of the trials that train to the end, for the scheduler: that of the
            defaults if `search.defaults` says so, and the proposed ones while they are trusted.
        ratio: how many times better misleading sources explain the losses, at most so far.
        is_lost: True once the losses contradict the sources; stays True.
    """

    def __init__(self, space: SearchSpace, proposals: Proposals = NOTHING) -> None:
        self._space, self._proposals = space, proposals.draws
        races = space.search.defaults != "full" or (RACES_DEFAULTS and self._proposals)
        self._unconditional = set[int]() if races else {DEFAULTS}
        self.never_stopped = set(self._unconditional)
        self.ratio, self.is_lost = 1.0, False
        self._theta = strength(proposals.confidence)
        self._given = first_draws(space, self._proposals) if self._proposals else []
        confidences = [p.prior.confidence for p in space.searched if p.prior]
        self._confidence = max([proposals.confidence, *confidences])
        self._losses: list[tuple[float, bool]] = []  # first loss, whether the trial is proposed
        self._counts: dict[int, int] = {}  # number of a trial → trials drawn before it

    def add(self, trial: Trial) -> None:
        """Take a trial that begins; the scheduler is told of it later."""
        if not (self._proposals and trial.is_searched):
            return
        self._counts[trial.number] = len(self._counts)
        if trial.draw in self._proposals and not self.is_lost:
            self.never_stopped.add(trial.number)

    def take(self, trial: Trial, loss: float) -> None:
        """Take the first report of a trial of the search.

        Args:
            trial: the trial.
            loss: its value, smaller is better; infinity if it diverged.
        """
        if self.is_lost or not self._proposals:
            return
        is_proposed = trial.draw in self._proposals
        if not is_proposed and not self._is_independent(trial):
            return
        self._losses.append((loss, is_proposed))
        self.ratio = max(self.ratio, math.exp(log_ratio(self._losses, self._theta)))
        if self.ratio >= _RATIO:
            self.is_lost = True
            self.never_stopped &= self._unconditional  # in place: it is the scheduler's set, too

    def _is_independent(self, trial: Trial) -> bool:
        """Return True for the defaults, and for what the sampler drew without prior or model."""
        if trial.draw in self._given:
            return trial.number == DEFAULTS and self._space.search.defaults != "off"
        others = sum(not is_proposed for _, is_proposed in self._losses)
        count = self._counts[trial.number]
        number = count if self._space.budget.shorter else trial.number
        seed = self._space.search.seed
        return others <= STARTUP and not asks_prior(self._confidence, seed, number, count)

    @property
    def sentence(self) -> str:
        """What the first trials say against the sources; empty as long as they bear them out."""
        if not self.is_lost:
            return ""
        return (
            f"the first trials contradicted the sources (their order is {self.ratio:,.0f} times "
            f"likelier if the sources say nothing about this search), which went on without them"
        )
