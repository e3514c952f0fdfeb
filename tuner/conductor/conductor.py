"""Decides what each lane trains next, and whether a trial continues after a report.

The conductor has no clock, files or Ray: its answers are a function of the calls made to it. So a
search resumes after a crash by repeating the calls of its journal, and a benchmark conducts
searches whose training was done long ago.

A *lane* is a place where one trial trains at a time. Each lane has a virtual clock that counts
what training costs (`clock.py`) as if all lanes were equally fast. `expected` names the trial whose
report comes first by these clocks: a driver that takes reports in this order conducts the same
search whatever the real timing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from model.engine.report import Report, Status
from model.spec.trial import Continues, TrialSpec
from tuner.conductor.arms import Arms, deciders
from tuner.conductor.board import Board
from tuner.conductor.clock import CLOCKS, TOKENS
from tuner.conductor.confirmation import Confirmation
from tuner.conductor.cool_downs import CoolDowns, first_job
from tuner.conductor.job import Job, Lane, RestoredDecisions, resume_job
from tuner.conductor.left import estimate_left
from tuner.conductor.outcome import DIVERGED, FINISHED, Outcome
from tuner.conductor.retraining import conclude, missing_pairs, retraining_of
from tuner.conductor.trial import Trial
from tuner.conductor.trust import Trust
from tuner.samplers.sampler import Sampler
from tuner.schedulers.scheduler import Branch, Decision, Resume, SchedulerContext
from tuner.space.cool_down import branch_specs
from tuner.space.data_facts import DataFacts
from tuner.space.first_draws import can_draw
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.space import SearchSpace


class UnexpectedReport(Exception):  # noqa: N818 - the name states the problem
    """A trial reports or fails that no lane trains, or was decided otherwise."""


class Conductor:
    """Conducts one search.

    Args:
        space: parameters to search, and the settings of the search.
        facts: facts of the data that specifications need.
        slots: number of trials in training at one time; each has a lane.
        restored: decisions of a search that is repeated from its journal.
        find: returns the reports of a finished trial with a specification's hash, or none.
        clock: name of the lanes' clock, a key of `CLOCKS`.
        proposals: what earlier searches propose: first trials, and priors.
        memory_bytes: memory for one trial; 0 if it is not known.

    Attributes:
        board: all trials.
        trust: trust in the proposals, which says what the sampler may follow.
        space: parameters to search, as last edited.
        proposals: what earlier searches propose.
        limit: name of the limit that the search has reached; None if it has reached none.
        confirmation: comparison of the best configurations, once they are retrained.
    """

    def __init__(
        self,
        space: SearchSpace,
        facts: DataFacts,
        slots: int,
        restored: RestoredDecisions | None = None,
        find: Callable[[str], Sequence[Report]] | None = None,
        clock: str = TOKENS,
        proposals: Proposals = NOTHING,
        memory_bytes: int = 0,
    ) -> None:
        self._facts, self._memory_bytes = facts, memory_bytes
        self.proposals = proposals
        self._clock = CLOCKS[clock]
        self._restored = restored or RestoredDecisions()
        self._find = find
        self._lanes = [Lane(index) for index in range(slots)]
        # Virtual clock of the latest event. It never goes back: a job begins at `_now` or later,
        # so that no lane trains a job before the report that led to the job.
        self._now = 0
        self._num_suggested = 0  # trials that the sampler suggested
        self._num_replaced = 0  # infeasible ones, in whose place others are suggested
        self._cool_downs = CoolDowns()
        self._num_never = 0  # shorter budgets that their trunks did not reach
        # Trials ended or paused since the best one improved. Paused trials count, because the
        # promoting schedulers pause trials instead of stopping them: counting only ended trials
        # would never use up `patience`.
        self._without_gain = 0
        self.limit: str | None = None
        self.confirmation: Confirmation | None = None
        self._by_hash: dict[str, int] = {}  # hash of a specification → first trial that has it
        self._lengths = space.lengths(facts)
        self.trust = Trust(space, proposals)
        never_stopped = self.trust.never_stopped
        context = SchedulerContext(space, *self._lengths, never_stopped, facts.train_size)
        self._sampler, self._scheduler = deciders(context, proposals)
        self.board = Board.of(space, facts, self.trust)
        self.space = space

    def edit(self, space: SearchSpace, slots: int = 0) -> None:
        """Continue with another space that `journal.edit.check_edit` allows.

        The sampler then observes those trials that could have been drawn from the new space. There
        are `slots` lanes afterwards, or as many as before if those are more.
        """
        self.space = space
        added = range(len(self._lanes), slots)
        self._lanes += [Lane(index, self._now) for index in added]
        self.board.edit(space, self._num_never)
        self.limit, self.confirmation = None, None
        self._without_gain = 0
        self._scheduler.edit(space)
        if not isinstance(self._sampler, Arms):  # which have renewed their own
            self._sampler = Sampler(space, *self._lengths, self.proposals)
        for trial in self.board.trials.values():
            if trial.is_searched and can_draw(space, trial.draw):
                self._sampler.restore(self._key_of(trial.number), trial.draw)
                if trial.outcome is not None or trial.is_paused:
                    self._observe(trial)

    # jobs --------------------------------------------------------------------------------------

    def fill(self) -> list[Job]:
        """Return jobs for the lanes that have none."""
        return list(self._filled())

    def _filled(self) -> Iterator[Job]:
        while idle := [lane for lane in self._lanes if lane.job is None]:
            # By clock, then by index: which lane gets the job depends on virtual time only, never
            # on which worker was really free first. So a repeated journal gives the same jobs.
            lane = min(idle, key=lambda s: (s.clock, s.index))
            job = self._next(lane.index)
            if job is None:
                return
            lane.job, lane.clock = job, max(lane.clock, self._now)
            spec = self.board.trials[job.number].spec
            lane.trains_at = lane.clock + self._clock.per_job
            after = max(job.after, self.board.trials[job.number].shared_step)
            lane.tokens_before = after * spec.tokens_per_step
            lane.per_token = self._clock.per_token(spec)
            yield job

    def _next(self, lane: int) -> Job | None:
        """Return the next job of the search or, if the search has none left, to confirm it."""
        while self.limit is None:
            if (branch := self._cool_downs.next()) is not None:
                # before new trials, so that no more states of trunks are kept than necessary
                trial = self._add_cool_down(branch.trunk, branch.spec)
                if (job := self._begin(trial, lane)) is not None:
                    return job
                continue
            choice = self._scheduler.choose(may_start=self._may_start)
            if choice is None:
                break
            if isinstance(choice, Resume):
                trial = self.board.trials[choice.number]
                # `close` gave a paused trial an outcome, if the search ended before an edit
                trial.is_paused, trial.outcome = False, None
                return resume_job(trial, lane)
            if isinstance(choice, Branch):
                trial, parent = self._add_branch(choice), self.board.trials[choice.parent]
                return Job(trial.number, lane, parent.step, (parent.number, parent.step))
            if (job := self._begin(self._add_new(), lane)) is not None:
                return job
        return self._next_confirmation(lane)

    def _begin(self, trial: Trial, lane: int) -> Job | None:
        """Return the first job of a trial.

        None if the trial equals an earlier one, or does not fit into memory: it has ended.
        """
        if reason := self._why_infeasible(trial):
            trial.outcome = Outcome.infeasible(reason)
            self._num_replaced += self.board.replace(trial)
            self._end(trial)
            return None
        first = self._by_hash.setdefault(trial.spec.hash, trial.number)
        if first == trial.number:
            return self._first_job(trial, lane)
        trial.outcome = Outcome.same_as(first)
        self._end(trial)
        return None

    def _why_infeasible(self, trial: Trial) -> str:
        if trial.number in self._restored.draws:  # the version that began it may have known better
            return self._restored.infeasible.get(trial.number, "")
        return trial.why_too_large(self._memory_bytes)

    @property
    def _may_start(self) -> bool:
        most = self._sampler.num_configurations
        count = self._num_suggested - self._num_replaced
        return count < self.space.search.trials and (most is None or count < most)

    def _add_new(self) -> Trial:
        number = len(self.board.trials)
        draw = self._restored.draws.get(number)
        if draw is None:
            draw = self._sampler.suggest(self._key_of(number), self.trust.belief)
        else:
            self._sampler.restore(self._key_of(number), draw, self.trust.belief)
        self._num_suggested += 1
        spec = self.space.spec(draw, self._facts, self.space.search.seed)
        return self._add(Trial(number, spec, draw))

    def _add_cool_down(self, trunk: int, spec: TrialSpec) -> Trial:
        """Add a trial for a shorter budget; neither sampler nor scheduler is told of it."""
        source = self.board.trials[trunk]
        number, is_whole = len(self.board.trials), bool(source.reused)
        trial = Trial(number, spec, source.draw, parent=trunk, is_whole=is_whole)
        self.board.add(trial)
        return trial

    def _key_of(self, number: int) -> int:
        """Return the number of a drawn trial among those that the sampler suggests.

        So a list of budgets draws what its longest budget draws alone.
        """
        if not self.space.budget.shorter:
            return number
        return sum(trial.number < number for trial in self.board.searched)

    def _observe(self, trial: Trial) -> None:
        if self.trust.is_lost and trial.draw in self.proposals.draws:
            return  # else they would be among the first trials, which samplers need to be random
        self._sampler.observe(self._key_of(trial.number), self.board.observation(trial))

    def _add_branch(self, branch: Branch) -> Trial:
        """Add a trial that continues from another's checkpoint with other hyperparameters."""
        number, parent = len(self.board.trials), self.board.trials[branch.parent]
        self._sampler.restore(number, branch.draw)
        unlinked = self.space.spec(branch.draw, self._facts, self.space.search.seed)
        spec = TrialSpec.model_validate(
            {**dict(unlinked), "continues": Continues(spec=parent.spec, step=parent.step)}
        )
        trial = Trial(number, spec, branch.draw, parent=parent.number)
        self.board.num_trials += 1
        return self._add(trial)

    def _add(self, trial: Trial) -> Trial:
        self.board.add(trial)
        self._scheduler.add(trial.number, trial.draw)
        return trial

    def _first_job(self, trial: Trial, lane: int) -> Job:
        """Return the first job of a trial, which reuses the reports of an equal finished trial."""
        if trial.number in self._restored.draws:
            # not found again: the store may have gained an equal trial since
            trial.reused = self._restored.reused.get(trial.number, ())
        elif self._find:
            trial.reused = self._find(trial.spec.hash)
        if trial.parent is not None and trial.is_cool_down and not trial.reused:
            return first_job(trial, self.board.trials[trial.parent], lane)
        if trial.is_searched and self.space.budget.shorter:
            specs = branch_specs(self.space, trial.spec, trial.draw, self._facts)
            self._cool_downs.add(trial, specs)
        return Job(trial.number, lane, reports=trial.reused)

    @property
    def under_way(self) -> list[Job]:
        """Jobs in the lanes, each continuing from the newest report of its trial."""
        return [self._continued(lane.job) for lane in self._lanes if lane.job is not None]

    def _continued(self, job: Job) -> Job:
        trial = self.board.trials[job.number]
        if trial.step > trial.shared_step or (trial.reports and job.source is None):
            return resume_job(trial, job.lane)
        return replace(job, after=max(job.after, trial.step))  # it has no state of its own yet

    def needed(self, number: int) -> set[int]:
        """Return the updates of a trial's states from which other jobs have yet to begin."""
        sources = (job.source for job in self.under_way if job.source is not None)
        steps = {step for source, step in sources if source == number}
        return steps | self._cool_downs.needed(number)

    @property
    def is_over(self) -> bool:
        """True if no lane has a job; after `fill`, that no job is left."""
        return all(lane.job is None for lane in self._lanes)

    @property
    def expected(self) -> tuple[int, int] | None:
        """Trial and step of the report that comes next by the clocks; None without jobs."""
        reports = [(*self._next_report(lane), lane) for lane in self._lanes if lane.job is not None]
        if not reports:
            return None
        # two lanes may report at the same virtual time: the lane with the smaller index is first
        _, step, lane = min(reports, key=lambda t: (t[0], t[2].index))
        assert lane.job is not None
        return lane.job.number, step

    def _next_report(self, lane: Lane) -> tuple[int, int]:
        """Return virtual clock and step of the next report in a lane."""
        assert lane.job is not None
        trial = self.board.trials[lane.job.number]
        step = next(s for s in trial.report_steps if s > max(trial.step, lane.job.after))
        return lane.clock_at(step * trial.spec.tokens_per_step), step

    # events ------------------------------------------------------------------------------------

    def report(self, number: int, report: Report) -> Decision:
        """Take the report of a trial in training, and decide whether the trial continues."""
        lane, trial = self._lane_of(number), self.board.trials[number]
        # A reused report advances the clock as if it had been trained: the same search takes the
        # same decisions whether or not the store has equal trials.
        # `max`, because a driver may take reports as they come, not by the clocks.
        self._now = max(self._now, lane.clock_at(report.tokens))
        has_improved = self.board.record_report(number, report)
        self._cool_downs.take_report(trial)
        decision = self._decide(trial, report)
        if decision is not Decision.CONTINUE:
            lane.job, lane.clock = None, self._now
        if trial.confirms is None:
            self._without_gain = 0 if has_improved else self._without_gain
            self._check_limits(trial)
        return decision

    def _decide(self, trial: Trial, report: Report) -> Decision:
        if report.status is Status.DIVERGED or not math.isfinite(self.board.rank(trial)):
            trial.outcome = DIVERGED
        elif report.status is Status.FINISHED:
            trial.outcome = FINISHED
        if trial.outcome is not None:
            self._end(trial)
            return Decision.STOP
        if trial.confirms is not None:
            return Decision.CONTINUE
        if trial.is_cool_down:
            if self.limit is None:
                return Decision.CONTINUE
            trial.outcome = Outcome.stopped(len(trial.reports))
            return Decision.STOP
        spent = self.board.spent(trial, report.tokens)
        decision = self._scheduler.judge(trial.number, spent, self.board.rank(trial))
        if self.limit is not None:
            self._scheduler.end(trial.number, spent, None)
            decision = Decision.STOP
        trial.is_paused = decision is Decision.PAUSE
        if decision is Decision.STOP:
            trial.outcome = Outcome.stopped(len(trial.reports))
            self._drop_cool_downs(trial)
        if decision is not Decision.CONTINUE:
            self._without_gain += 1
            self._observe(trial)
        return decision

    def fail(self, number: int, reason: str) -> None:
        """End a trial in training that cannot continue."""
        lane, trial = self._lane_of(number), self.board.trials[number]
        lane.job, lane.clock = None, self._now
        trial.outcome = Outcome.failed(reason)
        if self._by_hash.get(trial.spec.hash) == number:
            del self._by_hash[trial.spec.hash]  # a later equal trial may be trained
        self._end(trial)

    def close(self) -> None:
        """End the search: paused trials count as stopped at their newest reports."""
        for trial in self.board.trials.values():
            if trial.is_paused:
                trial.outcome = Outcome.stopped(len(trial.reports))

    def _end(self, trial: Trial) -> None:
        """Tell scheduler and sampler that a trial of the search will not report again."""
        if trial.is_searched:
            value = self.board.rank(trial) if trial.has_finished else None
            spent = self.board.spent(trial, trial.tokens)
            self._scheduler.end(trial.number, spent, value)
            self._observe(trial)
            self._without_gain += 1
            self._drop_cool_downs(trial)

    def _drop_cool_downs(self, trunk: Trial) -> None:
        """Forget the branches that an ended trial did not reach."""
        never = self._cool_downs.end(trunk.number)
        if trunk.is_duplicate or trunk.is_infeasible:  # of a trial that has them, or of none
            never = len(self.space.budget.shorter)
        self.board.num_trials -= never
        self._num_never += never

    def _lane_of(self, number: int) -> Lane:
        for lane in self._lanes:
            if lane.job is not None and lane.job.number == number:
                return lane
        raise UnexpectedReport(number)

    def _check_limits(self, trial: Trial) -> None:
        settings = self.space.search
        if self.limit is not None:
            return
        if settings.max_tokens is not None and self.board.tokens >= settings.max_tokens:
            self.limit = "max_tokens"
        elif settings.patience is not None and self._without_gain >= settings.patience:
            self.limit = "patience"
        elif settings.stop_when_left_below is not None and trial.has_finished:
            left = estimate_left(self.space, self.board.searched, self.proposals.draws)
            if left is not None and left.share < settings.stop_when_left_below:
                self.limit = "stop_when_left_below"

    # confirmation ------------------------------------------------------------------------------

    def _next_confirmation(self, lane: int) -> Job | None:
        """Retrain the best configurations with fresh seeds, once the search is over."""
        training = [self.board.trials[s.job.number] for s in self._lanes if s.job is not None]
        if any(trial.confirms is None for trial in training):
            return None
        pair = next(missing_pairs(self.board, self.space), None)
        if pair is not None:
            number = len(self.board.trials)
            self.board.add(retraining_of(number, *pair))
            self.board.num_trials = max(self.board.num_trials, number + 1)
            return self._first_job(self.board.trials[number], lane)
        if self.is_over:
            self.confirmation = conclude(self.board, self.space)
        return None
