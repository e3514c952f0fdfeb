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

Misleading sources shall cost little, so what they may claim grows with the evidence:

* Before the proposals come the defaults and a random configuration, if the scheduler pauses new
  trials: two comparisons for a small share of a complete trial, which condemn bad proposals at
  their first report.
* Two proposals at most are kept from the scheduler. One takes the place of the defaults, which are
  raced in a search that learns (`Proposals.mode_of_defaults`), so that sources cost one complete
  trial at most even if they are never found out.
* While the ratio is above 1, proposals and centre wait, and the sampler draws without them, which
  makes the comparisons that decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.conductor.trial import Trial
from tuner.samplers.priors import asks_prior
from tuner.samplers.sampler import Belief
from tuner.samplers.tpe import STARTUP
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.first_draws import first_draws
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.space import SearchSpace

DEFAULTS = 0  # number of the trial with the defaults, unless `search.defaults` is off
_RATIO = 10.0  # trust is lost when misleading sources explain the order so many times better
_COMPARED = 2  # trials before the proposals, if they are cheap
_PROTECTED = 2  # proposals that the scheduler does not pause or stop


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
            defaults if `search.defaults` says so, and the first proposed ones while they are
            trusted.
        ratio: how many times better misleading sources explain the losses, at most so far.
        is_lost: True once the losses contradict the sources; stays True.
    """

    def __init__(self, space: SearchSpace, proposals: Proposals = NOTHING) -> None:
        self._space, self._proposals = space, proposals.draws
        mode = proposals.mode_of_defaults(space.search.defaults)
        self._unconditional = {DEFAULTS} if mode == "full" else set[int]()
        self.never_stopped = set(self._unconditional)
        self.ratio, self.is_lost = 1.0, False
        self._is_doubted = False  # the losses so far speak against the sources
        self._theta = strength(proposals.confidence)
        self._given = first_draws(space, self._proposals) if self._proposals else []
        own = max((p.prior.confidence for p in space.searched if p.prior), default=0.0)
        self._confidence = {
            Belief.SOURCES: max(proposals.confidence, own), Belief.OWN: own, Belief.NOTHING: 0.0,
        }  # fmt: skip
        self._compares = SCHEDULERS[space.search.scheduler].pauses(space)
        self._losses: list[tuple[float, bool]] = []  # first loss, whether the trial is proposed
        self._count = 0  # trials of the search that have begun
        self._random: set[int] = set()  # numbers of the trials that are random configurations

    @property
    def belief(self) -> Belief:
        """What the next suggestion may follow."""
        if self.is_lost or self._is_doubted:
            return Belief.OWN
        is_first = bool(self._proposals) and self._compares and self._count < _COMPARED
        return Belief.NOTHING if is_first else Belief.SOURCES

    def add(self, trial: Trial) -> None:
        """Take a trial that begins; the scheduler is told of it later."""
        if not (self._proposals and trial.is_searched):
            return
        if trial.draw in self._proposals:
            kept = len(self.never_stopped - self._unconditional)
            if not self.is_lost and kept < _PROTECTED:
                self.never_stopped.add(trial.number)
        elif self._is_random(trial):
            self._random.add(trial.number)
        self._count += 1

    def take(self, trial: Trial, loss: float) -> None:
        """Take the first report of a trial of the search.

        Args:
            trial: the trial.
            loss: its value, smaller is better; infinity if it diverged.
        """
        if self.is_lost or not self._proposals:
            return
        is_proposed = trial.draw in self._proposals
        if not is_proposed and trial.number not in self._random:
            return
        self._losses.append((loss, is_proposed))
        ratio = math.exp(log_ratio(self._losses, self._theta))
        self.ratio, self._is_doubted = max(self.ratio, ratio), ratio > 1
        if self.ratio >= _RATIO:
            self.is_lost = True
            self.never_stopped &= self._unconditional  # in place: it is the scheduler's set, too

    def _is_random(self, trial: Trial) -> bool:
        """Return True for the defaults, and for what the sampler draws without prior or model."""
        search = self._space.search
        if trial.draw in self._given:
            return trial.number == DEFAULTS and search.defaults != "off"
        number = self._count if self._space.budget.shorter else trial.number
        confidence = self._confidence[self.belief]
        has_prior = asks_prior(confidence, search.seed, number, self._count)
        return self._count < STARTUP and not has_prior

    @property
    def sentence(self) -> str:
        """What the first trials say against the sources; empty as long as they bear them out."""
        if not self.is_lost:
            return ""
        return (
            f"the first trials contradicted the sources (their order is {self.ratio:,.0f} times "
            f"likelier if the sources say nothing about this search), which went on without them"
        )
