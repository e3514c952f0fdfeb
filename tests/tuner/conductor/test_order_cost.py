"""What the order of reports costs: slot-time lost by waiting for the reports of other slots.

The conductor conducts searches on made-up slots: a trial takes the time that the clock expects,
times a factor of its model and of each interval between two reports, and a report is on its way for
20 ms. A slot loses the time from the end of an interval to the decision, if that ends or pauses its
trial; in all other cases the trial has trained on.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from tuner.conductor.clock import CLOCKS, SECONDS, TOKENS
from tuner.conductor.conductor import Conductor
from tuner.schedulers.scheduler import Decision
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

FACTS = DataFacts(2_048, 3_500_000, 180_000, "data", "tokenizer")
LM = Path(__file__).parents[3] / "search_spaces" / "lm.yaml"
DELAY, NOISE = 0.02, 0.05  # seconds; standard deviation of the logarithm of an interval's factor
SEARCHES, TRIALS = 6, 24


class Play:
    """A search on made-up slots that takes reports in the order of a clock."""

    def __init__(self, space: SearchSpace, slots: int, clock: str, models: float, seed: int):
        settings = space.search.model_copy(update={"seed": seed})
        searched = space.model_copy(update={"search": settings})
        self._conductor = Conductor(searched, FACTS, slots, clock=clock)
        self._models, self._seed = models, seed
        # trial → when its job began, and its reports to come with the times of their ends
        self._began: dict[int, float] = {}
        self._coming: dict[int, list[tuple[float, Report]]] = {}
        self.seconds = self.lost = self.trained = 0.0
        self._fill()
        while self._coming:
            self._take()

    def _take(self) -> None:
        assert self._conductor.expected is not None
        number = self._conductor.expected[0]
        end, report = self._coming[number].pop(0)
        self.seconds = max(self.seconds, end + DELAY)
        if self._conductor.report(number, report) is not Decision.CONTINUE:
            self.lost += self.seconds - end
            self.trained += end - self._began[number]
            del self._coming[number]
        self._fill()

    def _fill(self) -> None:
        for job in self._conductor.fill():
            spec = self._conductor.board.trials[job.number].spec
            self._began[job.number] = self.seconds
            self._coming[job.number] = self._reports(spec, job.number, job.after)

    def _reports(self, spec: TrialSpec, number: int, before: int) -> list[tuple[float, Report]]:
        clock, reports = CLOCKS[SECONDS], []
        model = math.exp(self._models * self._normal(spec.architecture.model_dump_json())) / 1e12
        at = self.seconds + clock.per_job / 1e12 - DELAY  # it hears of its job as late as we of it
        far = abs(math.log10(spec.hyperparameters.max_learning_rate / 0.01))
        for step in (step for step in spec.report_steps if step > before):
            noise = math.exp(NOISE * self._normal(f"{number} {step}"))
            at += clock.per_token(spec) * spec.tokens_per_step * (step - before) * model * noise
            before, is_last = step, step == spec.report_steps[-1]
            loss = 4 + 0.3 * far + math.exp(-3 * step / spec.report_steps[-1])
            status = Status.FINISHED if is_last else Status.TRAINING
            tokens = step * spec.tokens_per_step
            reports.append((at, Report(str(number), status, step, tokens, loss, loss, 1.0, 1e-3)))
        return reports

    def _normal(self, key: str) -> float:
        return random.Random(f"{self._seed} {key}").gauss(0, 1)


def lost(folder: Path, slots: int, clock: str, *, sizes: bool) -> float:
    """Share of slot-time that searches lose, of models of one size or of many."""
    text = LM.read_text(encoding="utf-8")
    if sizes:
        many = "{d_model: {choice: [32, 64, 128]}, n_layers: {choice: [1, 2, 4]},"
        assert "{d_model: 64, n_layers: 2," in text
        text = text.replace("{d_model: 64, n_layers: 2,", many)
    text = text.replace("trials: 24, sampler: tpe", f"trials: {TRIALS}, sampler: random")
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    space = load_space(folder / "space.yaml")
    plays = [Play(space, slots, clock, 0.05 * sizes, seed) for seed in range(SEARCHES)]
    assert all(play.trained > 0 for play in plays)
    waited = sum(play.lost for play in plays)
    return waited / (waited + sum(play.trained for play in plays))


@pytest.mark.slow
def test_order_of_reports_costs_little_slot_time(tmp_path: Path) -> None:
    """At most 3 %, also where models have many sizes, of which the clock knows the time to 5 %."""
    assert 0 < lost(tmp_path, 2, SECONDS, sizes=False) < 0.03
    assert 0 < lost(tmp_path, 4, SECONDS, sizes=True) < 0.03


@pytest.mark.slow
def test_order_by_tokens_costs_much_where_models_have_many_sizes(tmp_path: Path) -> None:
    """So that the test above can fail."""
    assert lost(tmp_path, 4, TOKENS, sizes=True) > 0.1
