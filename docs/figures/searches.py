"""Searches of a synthetic task by the real conductor, sampler and scheduler.

Nothing is trained: a formula computes the reports. Starts, pauses, stops and copies are those of
`tuner search` with equal reports.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from model.engine.report import Report, Status
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space

REPORTS = 9
TOKENS = 90 * 512  # of a complete trial
SPACE = f"""\
model: {{context_length: 64}}
hyperparameters:
  α_max: {{log: [3e-4, 4e-2]}}
  λ: {{log: [1e-2, 1.0]}}
  B: 8
budget: {{tokens: {TOKENS}, reports: {REPORTS}}}
confirm: off
"""
_FACTS = DataFacts(300, 10_000_000, 10_000, "data", "tokenizer")
_BEST_RATE = 0.008
_TOO_HIGH = 0.03  # a rate at which trials diverge


@dataclass
class Segment:
    """Segment of a trial: its uninterrupted time in one slot.

    Attributes:
        number: number of the trial.
        slot: index of the slot.
        start: clock of the slot at the start, in tokens.
        end: clock of the slot at the end, in tokens.
        first: tokens of the trial at the start.
        last: tokens of the trial at the end.
    """

    number: int
    slot: int
    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class Search:
    """A search that has ended.

    Attributes:
        trials: the trials, by number.
        segments: the segments, in the order of their start.
        slots: number of trials in training at one time.
    """

    trials: list[Trial]
    segments: list[Segment]
    slots: int

    @property
    def share(self) -> float:
        """Trained tokens as a share of the tokens of complete trials."""
        started = sum(trial.parent is None for trial in self.trials)
        return sum(trial.tokens_trained for trial in self.trials) / (started * TOKENS)

    def quarter(self, trial: Trial) -> int:
        """Return the quarter of a trial by its final loss: 0 is the best, 3 the worst."""
        worths = sorted(worth(t) for t in self.trials)
        return worths.index(worth(trial)) * 4 // len(worths)


def worth(trial: Trial) -> float:
    """Return the final loss of a configuration: a bowl around a learning rate and a decay."""
    h = trial.spec.hyperparameters
    if h.max_learning_rate > _TOO_HIGH:
        return math.inf
    rate = math.log10(h.max_learning_rate / _BEST_RATE)
    return 3.8 + 0.7 * rate**2 + 0.1 * math.log10(h.weight_decay / 0.1) ** 2


def report_at(trial: Trial, step: int) -> Report:
    """Return a report: a loss that falls towards the final loss, with decreasing noise."""
    tokens = step * trial.spec.tokens_per_step
    place = tokens / TOKENS
    if math.isinf(worth(trial)) and place > 0.2:
        loss, status = math.nan, Status.DIVERGED
    else:
        noise = random.Random(f"{trial.number} {step}").uniform(-0.2, 0.2) * (1 - place)
        end = min(worth(trial), 4.5)
        loss = end + 2.5 * math.exp(-4 * place) + noise
        is_last = step == trial.spec.hyperparameters.total_steps
        status = Status.FINISHED if is_last else Status.TRAINING
    return Report(str(trial.number), status, step, tokens, loss, loss, 1.0, 0.01)


def conduct(settings: str, slots: int = 4) -> Search:
    """Run a search to its end.

    Args:
        settings: content of `search:`, as YAML.
        slots: number of trials in training at one time.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "space.yaml"
        file.write_text(f"{SPACE}search: {{{settings}}}\n", encoding="utf-8")
        conductor = Conductor(load_space(file), _FACTS, slots)
    board = conductor.board
    segments: list[Segment] = []
    training: dict[int, Segment] = {}
    now = 0
    while True:
        for job in conductor.fill():
            first = job.after * board.trials[job.number].spec.tokens_per_step
            training[job.number] = Segment(job.number, job.lane, now, now, first, first)
            segments.append(training[job.number])
        expected = conductor.expected
        if expected is None:
            conductor.close()
            return Search(list(board.trials.values()), segments, slots)
        number, step = expected
        trial, segment = board.trials[number], training[number]
        report = report_at(trial, step)
        segment.last = report.tokens
        segment.end = segment.start + report.tokens - segment.first
        now = max(now, segment.end)
        conductor.report(number, report)
        if trial.outcome is not None or trial.is_paused:
            del training[number]
