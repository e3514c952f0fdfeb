"""Retrains a trial from its specification, and compares every report with the journal's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from model.corpus.corpus import Corpus
from model.corpus.prepare import cached, prepare
from model.engine.report import ADAPTER_METRICS, METRICS, SOME_METRICS, Report, Status
from model.errors import CompileError
from model.progress import OnProgress, silent
from model.sources.fingerprint import difference
from model.spec.data import TokenizerConfig
from model.spec.trial import TrialSpec
from tuner.conductor.outcome import OutcomeKind
from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.home.private_folder import private_folder
from tuner.texts.formatting import short_hash
from tuner.tracking.artifacts import bring_start, recorded_tokenizer
from tuner.tracking.metrics import as_stored
from tuner.tracking.records import TrialRecord
from tuner.tracking.tags import ENVIRONMENT
from tuner.trained.moved_data import find_data
from tuner.trained.recorded_trials import RecordedTrial, RecordedTrials

# On another device or library version sums are rounded differently, and training amplifies this.
RELATIVE_TOLERANCE = 0.02
# For accuracies and scores: a different choice between two equally probable tokens changes them.
_ABSOLUTE_TOLERANCE = {
    "token_accuracy": 0.02,
    "exact_match": 0.02,
    "acc": 0.02,
    "acc_norm": 0.02,
    "bleu": 2.0,
}


OnReport = Callable[[int, int, Report], None]


class Verdict(StrEnum):
    """Result of the comparison in a replay."""

    BIT_EXACT = "bit-exact"  # every number of every report is equal
    WITHIN_TOLERANCE = "within tolerance"  # close, on another device or library version
    DIFFERENT = "different"  # larger differences, or an equal environment


@dataclass(frozen=True)
class Difference:
    """One number that differs from the recorded one."""

    step: int
    metric: str
    recorded: float
    replayed: float

    @property
    def of_allowed(self) -> float:
        """Difference as a fraction of the tolerance for another environment."""
        if math.isnan(self.recorded) or math.isnan(self.replayed):
            return math.inf
        allowed = _ABSOLUTE_TOLERANCE.get(self.metric, RELATIVE_TOLERANCE * abs(self.recorded))
        return abs(self.replayed - self.recorded) / max(allowed, 1e-14)


@dataclass(frozen=True)
class ReplayResult:
    """Result of a replay.

    Attributes:
        trial: the replayed trial.
        spec: its specification.
        verdict: the verdict.
        reports: number of compared reports.
        differences: all numbers that differ, by step.
        changed: part of the environment → recorded and present value, where they differ.
        state: checkpoint at the last report, if `replay` got a folder for checkpoints.
        prepared: True if it was trained on the prepared copy of the data in the home.
    """

    trial: TrialRecord
    spec: TrialSpec
    verdict: Verdict
    reports: int
    differences: list[Difference]
    changed: dict[str, tuple[str, str]]
    state: Path | None = None
    prepared: bool = False

    @property
    def sentence(self) -> str:
        """The verdict as a message for the user."""
        environment = "; ".join(f"{k} {old} → {new}" for k, (old, new) in self.changed.items())
        if self.verdict is Verdict.BIT_EXACT:
            on = ", on the prepared copy of the data, which was not compared with the data"
            count = f"all {self.reports} reports are" if self.reports > 1 else "its report is"
            on = on if self.prepared else ""
            with_ = f", with {environment}" if environment else ""
            return f"bit-exact: {count} the same to the last bit{on}{with_}"
        worst = max(self.differences, key=lambda d: d.of_allowed)
        if self.verdict is Verdict.WITHIN_TOLERANCE:
            return (
                f"within tolerance: {worst.metric} at step {worst.step} is {worst.replayed:.6g} "
                f"and was {worst.recorded:.6g}, {100 * worst.of_allowed:.2g} % of the difference "
                f"that is allowed, with {environment}"
            )
        first = self.differences[0]
        where = f" with {environment}" if environment else " on the same device and versions"
        return (
            f"different: first at step {first.step}, {first.metric} is {first.replayed!r} and was "
            f"recorded as {first.recorded!r}{where}"
        )


def replay(
    run_id: str | None = None,
    *,
    search: str | None = None,
    home: Home | None = None,
    on_report: OnReport | None = None,
    on_progress: OnProgress = silent,
    states: Path | None = None,
    prepared: bool = False,
) -> ReplayResult:
    """Retrain a recorded trial and compare its reports with the recorded ones.

    Args:
        run_id: run id of the trial; by default the best trial of the search.
        search: name of the search; by default the newest.
        home: home of the searches; by default ./runs.
        on_report: called with the number of each replayed report, their count, and the report.
        on_progress: called with the progress of the preparation of the data.
        states: folder for checkpoints; None saves none.
        prepared: True to train on the prepared copy of the data in the home, whatever has become
            of the data itself.

    Returns:
        The verdict, with the differences between the reports.

    Raises:
        RecordError: if there is no such trial, its journal is neither here nor recorded, its
            outcome contradicts its reports, or its data, tokenizer or warm start have changed.
        JournalError: if the journal was edited or damaged.
        CorpusError: if the data cannot be read.
        StoreError: if the tracking store cannot be used.
    """
    trials = RecordedTrials.of(home or Home.recorded())
    trial, home = trials.find(run_id, search), trials.home
    recorded, about = trial.reports, trial.record
    if not recorded:
        raise RecordError(
            f"trial {about.number} of {about.search} ({about.status}) has no report to compare with"
        )
    _check_outcome(trial)
    if trial.spec.init_from is not None:
        bring_start(trials.record, trial.search, trial.spec.init_from, home)
    with private_folder() as folder:
        if prepared:
            corpus = _prepared_corpus(trials, trial)
        else:
            corpus = _recorded_corpus(trials, trial, folder, on_progress)
        reports, present = _retrain(
            trial.spec, len(recorded), about.environment, corpus, home.starts, on_report, states
        )
    changed = {
        name: (about.environment[name], present[name])
        for name in ENVIRONMENT
        if about.environment[name] != present[name]
    }
    differences = compare(recorded, reports)
    last = reports[-1].checkpoint if reports else None
    return ReplayResult(
        about,
        trial.spec,
        judge(differences, bool(changed)),
        len(recorded),
        differences,
        changed,
        Path(last) if last else None,
        prepared,
    )


def _check_outcome(trial: RecordedTrial) -> None:
    """Check that a trial ended as its reports say: a replay proves only the reports.

    Raises:
        RecordError: if it did not; no driver writes such a journal.
    """
    spec, outcome, reports = trial.spec, trial.trial.outcome, trial.trial.reports
    count, last, problem = len(reports), reports[-1].step, None
    steps = {report.step for report in reports if report.status is not Status.DIVERGED}
    if outcome is not None:
        if outcome.kind is OutcomeKind.FINISHED and last != spec.hyperparameters.total_steps:
            problem = f"it is finished, but has no report at its last update, only {count} before"
        elif outcome.kind is OutcomeKind.STOPPED and outcome.detail != str(count):
            problem = f"it was {outcome}, but has {count} reports"
        elif not steps <= {*spec.report_steps}:
            problem = "it has a report at an update at which its specification has none"
    if problem is not None:
        raise RecordError(
            f"trial {trial.record.number} of {trial.record.search} contradicts itself: {problem}; "
            f"its journal was edited, restore it"
        )


def _recorded_corpus(
    trials: RecordedTrials, trial: RecordedTrial, folder: Path, on_progress: OnProgress
) -> Corpus:
    """Prepare the data and the tokenizer of a trial; raise RecordError if they have changed.

    They are prepared anew in a folder: nothing shows that the copy in the home is of this data.
    """
    spec = trial.spec
    data, identity = find_data(spec.data, spec.data_fingerprint, trials.home)
    if identity.digest != spec.data_fingerprint:
        files = trials.record.data_files(trial.search)
        changes = difference(files, identity.files) or "its options changed"
        hint = "; python-stdlib differs between versions of Python" if spec.data.source else ""
        raise RecordError(
            f"the data has changed: {changes}{hint}; restore it to replay, or try 'tuner replay "
            f"--prepared', which trains on the copy that was prepared for the search (fingerprint "
            f"{short_hash(identity.digest)}… instead of {short_hash(spec.data_fingerprint)}…)"
        )
    tokenizer = _recorded_tokenizer(trials, trial)
    corpus = prepare(data, tokenizer, folder, on_progress=on_progress)
    if corpus.tokenizer_fingerprint != spec.tokenizer_fingerprint:
        raise RecordError(
            f"this version of tuner trains another tokenizer from the same data (fingerprint "
            f"{short_hash(corpus.tokenizer_fingerprint)}… instead of "
            f"{short_hash(spec.tokenizer_fingerprint)}…); replay with the recorded version"
        )
    return corpus


def _prepared_corpus(trials: RecordedTrials, trial: RecordedTrial) -> Corpus:
    """Load the corpus that was prepared for a trial; raise RecordError if it is gone."""
    spec, home = trial.spec, trials.home
    tokenizer = _recorded_tokenizer(trials, trial)
    corpus = cached(spec.data, tokenizer, home.corpora, digest=spec.data_fingerprint)
    if corpus is None or corpus.tokenizer_fingerprint != spec.tokenizer_fingerprint:
        raise RecordError(
            f"{home.corpora} has no prepared copy of the data of this trial; restore the data and "
            f"replay without --prepared"
        )
    return corpus


def _recorded_tokenizer(trials: RecordedTrials, trial: RecordedTrial) -> TokenizerConfig:
    """Return the configuration of a trial's tokenizer; a file is the recorded one."""
    spec = trial.spec
    if spec.tokenizer.file is None:
        return spec.tokenizer
    fingerprint = spec.tokenizer_fingerprint
    return recorded_tokenizer(trials.record, trial.search, fingerprint, trials.home)


def _retrain(
    spec: TrialSpec,
    count: int,
    recorded: Mapping[str, str],
    corpus: Corpus,
    starts: Path,
    on_report: OnReport | None,
    states: Path | None = None,
) -> tuple[list[Report], Mapping[str, str]]:
    """Train a specification up to a number of reports, on the recorded device if it is available.

    The ancestors of a trial that continues others are trained again too, without reports.

    Args:
        spec: the specification.
        count: number of reports.
        recorded: recorded environment: device, dtype and width of the stack.
        corpus: the prepared data.
        starts: folder of warm starts.
        on_report: as for `replay`.
        states: as for `replay`.

    Returns:
        The reports and the environment of this training.
    """
    from model.device.environment import environment
    from model.engine.engine import Engine

    device, dtype = _where(recorded)
    compiled, is_compiled = _compiler(recorded, device)
    width = recorded.get("width", "any")
    decode = corpus.tokenizer.decode
    engine = Engine(
        *corpus.splits,
        slots=1,
        width=int(width) if width.isdecimal() else None,
        device=device,
        dtype=dtype,
        is_compiled=is_compiled,
        starts=starts,
        decode=decode,
        choices=corpus.choices,
        checkpoint_dir=states,
    )
    reports: list[Report] = []
    for report in engine.run([spec]):
        reports.append(report)
        if on_report:
            on_report(len(reports), count, report)
        if len(reports) == count:
            engine.stop(report.trial_id)  # and wait until nothing is written any more
    return reports, environment(device, dtype, engine.width, compiled)


def _where(recorded: Mapping[str, str]) -> tuple[str, str]:
    """Return the recorded device kind and dtype; CPU and float32 replace unavailable ones."""
    import torch

    from model.device.precision import Precision

    kind, dtype = recorded["device"].partition(":")[0], recorded["dtype"]
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = kind if available.get(kind) else "cpu"
    try:
        Precision.of(dtype, torch.device(device))
    except ValueError:
        dtype = "float32"
    return device, dtype


def _compiler(recorded: Mapping[str, str], device: str) -> tuple[str, bool]:
    """Return the entry `compiled` of the replay's environment, and whether its ticks are compiled.

    A trial whose ticks were compiled is replayed so where that is possible.
    """
    from model.device.compiler import check_compiler
    from model.device.environment import NOT_COMPILED

    if device != "cpu" or recorded.get("compiled", NOT_COMPILED) == NOT_COMPILED:
        return NOT_COMPILED, False
    try:
        return check_compiler(), True
    except CompileError as error:
        return f"{NOT_COMPILED} ({error})", False


def compare(recorded: Mapping[int, Mapping[str, float]], reports: list[Report]) -> list[Difference]:
    """Return every number that differs between record and replay, by step and metric."""
    replayed = {report.step: report.metrics() for report in reports}
    known = {name for values in recorded.values() for name in values}
    # earlier versions did not record them
    metrics = [n for n in (*METRICS, *SOME_METRICS) if n in known or n not in ADAPTER_METRICS]
    differences = []
    for step in sorted(recorded.keys() | replayed.keys()):
        old_values, new_values = recorded.get(step, {}), replayed.get(step, {})
        for metric in metrics:
            old = old_values.get(metric, math.nan)
            new = as_stored(new_values.get(metric, math.nan))
            if old != new and not (math.isnan(old) and math.isnan(new)):
                differences.append(Difference(step, metric, old, new))
    return differences


def judge(differences: list[Difference], is_elsewhere: bool) -> Verdict:
    """Return the verdict: only another environment excuses a difference, and only a small one."""
    if not differences:
        return Verdict.BIT_EXACT
    if is_elsewhere and all(d.of_allowed <= 1 for d in differences):
        return Verdict.WITHIN_TOLERANCE
    return Verdict.DIFFERENT
