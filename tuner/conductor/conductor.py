"""The mind of a search: what each slot trains next, and what becomes of a trial at each report.

It has neither clock nor files nor Ray, and every answer is a function of the calls before it. So a
search goes on after a crash by repeating the calls of its journal, and a benchmark conducts
searches whose training has long been done.

A *slot* is a place where one trial trains at a time. Each has a virtual clock that counts training
tokens as if all slots were equally fast. `expected` says whose report comes first by these clocks:
a driver that takes reports in this order conducts the same search whatever the real timing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from model.engine.report import Report, Status
from model.spec.trial import Continues, TrialSpec
from tuner.conductor.board import Board
from tuner.conductor.confirm import conclude, missing_pairs, repetition
from tuner.conductor.confirmation import Confirmation
from tuner.conductor.job import Job, Lane, resume_job
from tuner.conductor.trial import Trial
from tuner.samplers.sampler import Sampler
from tuner.schedulers.registry import SCHEDULERS
from tuner.schedulers.scheduler import Branch, Decision, Resume, SchedulerContext
from tuner.space.data_facts import DataFacts
from tuner.space.estimate import expected_tokens
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace

DEFAULTS = 0  # number of the trial with the defaults


@dataclass(frozen=True)
class RestoredDecisions:
    """What a journal knows already, so that it is not made again.

    Attributes:
        draws: trial → what was drawn for it.
        recorded: trial → reports that it took from an equal trial.
    """

    draws: Mapping[int, Mapping[str, Value]] = field(default_factory=dict)
    recorded: Mapping[int, Sequence[Report]] = field(default_factory=dict)


class Conductor:
    """Conducts one search.

    Args:
        space: what may vary, and the settings of the search.
        corpus: what a specification must know of the data.
        slots: trials in training at one time.
        memory: of a search that is repeated from its journal.
        find: the reports of a finished trial with a specification's hash, or none.

    Attributes:
        board: all trials.
        limit: which limit of the search has been reached, if one has.
        confirmation: of the best configurations, once it is done.
    """

    def __init__(
        self,
        space: SearchSpace,
        corpus: DataFacts,
        slots: int,
        memory: RestoredDecisions | None = None,
        find: Callable[[str], Sequence[Report]] | None = None,
    ) -> None:
        self._corpus = corpus
        self._memory = memory or RestoredDecisions()
        self._find = find
        self._slots = [Lane(index) for index in range(slots)]
        self._now = 0  # virtual clock of the last event
        self._started = 0  # trials that the sampler suggested
        self._without_gain = 0  # trials ended since the best got better
        self.limit: str | None = None
        self.confirmation: Confirmation | None = None
        self._by_hash: dict[str, int] = {}  # specification → the first trial that has it
        self._lengths = space.report_tokens(corpus), space.budget_tokens(corpus)
        self._sampler = Sampler(space, *self._lengths)
        facts = SchedulerContext(space, *self._lengths, frozenset({DEFAULTS}), corpus.train_size)
        self._scheduler = SCHEDULERS[space.search.scheduler](facts)
        self.board = Board(space.objectives, space.search.trials, expected_tokens(space, corpus)[1])
        self.space = space

    def edit(self, space: SearchSpace, slots: int) -> None:
        """Go on with another space, which `history.check_edit` has allowed.

        The sampler then knows those of the trials that could have been drawn from it.
        """
        self.space = space
        more = range(len(self._slots), slots)
        self._slots += [Lane(index, self._now) for index in more]
        self.board.num_trials = max(space.search.trials, len(self.board.trials))
        self.limit, self.confirmation, self.board.winner = None, None, None
        self._without_gain = 0
        self._scheduler.edit(space)
        self._sampler = Sampler(space, *self._lengths)
        known = {p.label: p for p in space.searched}
        for row in self.board.trials.values():
            if row.confirms is None and all(
                label in known and known[label].contains(value) for label, value in row.draw.items()
            ):
                self._sampler.restore(row.number, row.draw)
                if row.outcome is not None or row.is_parked:
                    self._sampler.observe(row.number, self.board.observation(row))

    # jobs --------------------------------------------------------------------------------------

    def fill(self) -> list[Job]:
        """Jobs for the slots that have none."""
        return list(self._filled())

    def _filled(self) -> Iterator[Job]:
        while idle := [slot for slot in self._slots if slot.job is None]:
            slot = min(idle, key=lambda s: (s.clock, s.index))
            job = self._next(slot.index)
            if job is None:
                return
            slot.job, slot.clock = job, max(slot.clock, self._now)
            tokens_per_step = self.board.trials[job.number].spec.tokens_per_step
            slot.tokens_before = job.after * tokens_per_step
            yield job

    def _next(self, slot: int) -> Job | None:
        """The next job of the search, and when it has none left, of the confirmation."""
        while self.limit is None:
            choice = self._scheduler.choose(may_start=self._may_start)
            if choice is None:
                break
            if isinstance(choice, Resume):
                row = self.board.trials[choice.number]
                row.is_parked, row.outcome = False, None
                return resume_job(row, slot)
            if isinstance(choice, Branch):
                row, parent = self._add_branch(choice), self.board.trials[choice.parent]
                return Job(row.number, slot, parent.step, (parent.number, parent.step))
            row = self._add_new()
            twin = self._by_hash.setdefault(row.spec.hash, row.number)
            if twin == row.number:
                return self._first_job(row, slot)
            row.outcome = f"same as trial {twin}"
            self._end(row)
        return self._next_confirmation(slot)

    @property
    def _may_start(self) -> bool:
        most = self._sampler.num_configurations
        return self._started < self.space.search.trials and (most is None or self._started < most)

    def _add_new(self) -> Trial:
        number = len(self.board.trials)
        drawn = self._memory.draws.get(number)
        if drawn is None:
            drawn = self._sampler.suggest(number)
        else:
            self._sampler.restore(number, drawn)
        self._started += 1
        spec = self.space.spec(drawn, self._corpus, self.space.search.seed)
        return self._add(Trial(number, spec, drawn))

    def _add_branch(self, branch: Branch) -> Trial:
        """A trial that goes on from another's state with other hyperparameters."""
        number, parent = len(self.board.trials), self.board.trials[branch.parent]
        self._sampler.restore(number, branch.draw)
        plain = self.space.spec(branch.draw, self._corpus, self.space.search.seed)
        spec = TrialSpec.model_validate(
            {**dict(plain), "continues": Continues(spec=parent.spec, step=parent.step)}
        )
        row = Trial(number, spec, branch.draw, parent=parent.number)
        self.board.num_trials += 1
        return self._add(row)

    def _add(self, row: Trial) -> Trial:
        self.board.add(row)
        self._scheduler.add(row.number, row.draw)
        return row

    def _first_job(self, row: Trial, slot: int) -> Job:
        """From the start; or, if an equal trial has finished before, from its reports."""
        if row.number in self._memory.draws:
            row.recorded = self._memory.recorded.get(row.number, ())
        elif self._find:
            row.recorded = self._find(row.spec.hash)
        return Job(row.number, slot, reports=row.recorded)

    @property
    def under_way(self) -> list[Job]:
        """The jobs in the slots, each going on from the last report of its trial."""
        jobs = [slot.job for slot in self._slots if slot.job is not None]
        rows = [self.board.trials[job.number] for job in jobs]
        return [
            resume_job(row, job.slot) if row.reports else job
            for row, job in zip(rows, jobs, strict=True)
        ]

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way; after `fill` it means that nothing is left."""
        return all(slot.job is None for slot in self._slots)

    @property
    def expected(self) -> tuple[int, int] | None:
        """Trial and step of the report that comes next by the slots' clocks."""
        times = [(*self._next_report(slot), slot) for slot in self._slots if slot.job is not None]
        if not times:
            return None
        _, step, slot = min(times, key=lambda t: (t[0], t[2].index))
        assert slot.job is not None
        return slot.job.number, step

    def _next_report(self, slot: Lane) -> tuple[int, int]:
        """Virtual clock and step of the next report of a slot's trial."""
        assert slot.job is not None
        row = self.board.trials[slot.job.number]
        step = next(s for s in row.report_steps if s > max(row.step, slot.job.after))
        return slot.clock + step * row.spec.tokens_per_step - slot.tokens_before, step

    # events ------------------------------------------------------------------------------------

    def report(self, number: int, report: Report) -> Decision:
        """A trial under way reports."""
        slot, row = self._slot_of(number), self.board.trials[number]
        # one that is taken from the record counts as if trained: the same search again is the same
        self._now = max(self._now, slot.clock + report.tokens - slot.tokens_before)
        improved = self.board.report(number, report)
        decision = self._decide(row, report)
        if decision is not Decision.CONTINUE:
            slot.job, slot.clock = None, self._now
        if row.confirms is None:
            self._without_gain = 0 if improved else self._without_gain
            self._check_limits()
        return decision

    def _decide(self, row: Trial, report: Report) -> Decision:
        if report.status is Status.DIVERGED or not math.isfinite(self.board.rank(row)):
            row.outcome = str(Status.DIVERGED)
        elif report.status is Status.FINISHED:
            row.outcome = str(Status.FINISHED)
        if row.outcome is not None:
            self._end(row)
            return Decision.STOP
        if row.confirms is not None:
            return Decision.CONTINUE
        decision = self._scheduler.judge(row.number, report.tokens, self.board.rank(row))
        if self.limit is not None:
            self._scheduler.end(row.number, row.tokens, None)
            decision = Decision.STOP
        row.is_parked = decision is Decision.PAUSE
        if decision is Decision.STOP:
            row.outcome = f"stopped at report {len(row.reports)}"
        if decision is not Decision.CONTINUE:
            self._without_gain += 1
            self._sampler.observe(row.number, self.board.observation(row))
        return decision

    def fail(self, number: int, reason: str) -> None:
        """A trial under way cannot go on."""
        slot, row = self._slot_of(number), self.board.trials[number]
        slot.job, slot.clock = None, self._now
        row.outcome = f"failed: {reason}"
        if self._by_hash.get(row.spec.hash) == number:
            del self._by_hash[row.spec.hash]  # another one may try again
        self._end(row)

    def close(self) -> None:
        """Nothing is left: what is parked has been stopped where it stands."""
        for row in self.board.trials.values():
            if row.is_parked:
                row.outcome = f"stopped at report {len(row.reports)}"

    def _end(self, row: Trial) -> None:
        """A trial of the search will not report again."""
        if row.confirms is None:
            value = self.board.rank(row) if row.has_finished else None
            self._scheduler.end(row.number, row.tokens, value)
            self._sampler.observe(row.number, self.board.observation(row))
            self._without_gain += 1

    def _slot_of(self, number: int) -> Lane:
        return next(s for s in self._slots if s.job is not None and s.job.number == number)

    def _check_limits(self) -> None:
        settings = self.space.search
        if self.limit is not None:
            return
        if settings.max_tokens is not None and self.board.tokens >= settings.max_tokens:
            self.limit = "max_tokens"
        elif settings.patience is not None and self._without_gain >= settings.patience:
            self.limit = "patience"

    # confirmation ------------------------------------------------------------------------------

    def _next_confirmation(self, slot: int) -> Job | None:
        """Retrain the best configurations with fresh seeds, once the search is over."""
        training = [self.board.trials[s.job.number] for s in self._slots if s.job is not None]
        if any(row.confirms is None for row in training):
            return None
        pair = next(missing_pairs(self.board, self.space), None)
        if pair is not None:
            number = len(self.board.trials)
            self.board.add(repetition(number, *pair))
            self.board.num_trials = max(self.board.num_trials, number + 1)
            return self._first_job(self.board.trials[number], slot)
        if self.is_over:
            self.confirmation = conclude(self.board, self.space)
        return None
