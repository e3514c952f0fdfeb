"""A trained trial: its weights, from the record or trained again from its specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from torch import Tensor

from model.checkpoints.warm_start import WarmStartSource
from model.engine.report import Report
from model.errors import CheckpointError
from model.network.encoder_decoder import TransformerPair
from model.network.transformer import TransformerLM
from model.progress import OnProgress, silent
from model.spec.trial import TrialSpec
from model.tokenizer.load import load_tokenizer
from model.tokenizer.tokenizer import Tokenizer
from tuner.errors import RecordError
from tuner.home import Home
from tuner.tracking.artifacts import kept_state, recorded_tokenizer
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.tracking.tags import STATE_FILE
from tuner.trained.replay import Verdict, replay

_SHOWN_LETTERS = 8  # of a run id


@dataclass(frozen=True, repr=False)
class TrainedTrial:
    """A trial and what it has learned.

    Attributes:
        trial: as it is recorded.
        spec: what was trained.
        step: updates done.
        weights: those that the last val_loss was measured with, by the names of
            `model.parameter_shapes`; float32, on the CPU.
        tokenizer: the one that it was trained with.
        origin: whether its weights were kept, or trained again from the specification.
        note: what to know of weights that were trained again, if they are not the recorded ones
            to the last bit.
    """

    trial: TrialRecord
    spec: TrialSpec
    step: int
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    origin: Literal["kept", "retrained"]
    note: str = ""

    def model(self) -> TransformerLM | TransformerPair:
        """A torch module with these weights, K = 1; a pair if it is an encoder–decoder."""
        a = self.spec.architecture
        made = TransformerPair if a.n_encoder_layers else TransformerLM
        return made.of(a, self.weights)

    def __repr__(self) -> str:
        trial = self.trial
        return (
            f"<trial {trial.number} of {trial.search}, {trial.status}: run "
            f"{trial.run_id[:_SHOWN_LETTERS]}, {self.step} updates, weights {self.origin}>"
        )


def load_trial(
    run: str | None = None,
    *,
    search: str | None = None,
    home: Home | None = None,
    on_report: Callable[[int, int, Report], None] | None = None,
    on_progress: OnProgress = silent,
) -> TrainedTrial:
    """Load a recorded trial with its weights.

    The weights of the best trials of a search are kept (`search.keep`). Those of any other one are
    a function of its specification: it is trained again, and its reports are compared with the
    recorded ones.

    Args:
        run: MLflow run of the trial, or its first eight or more letters; by default the best trial
            of the search.
        search: name of the search; by default the newest.
        home: where the searches live; by default ./runs.
        on_report: is told the number of each report of a retraining, how many there will be, and
            it.
        on_progress: is told how far the preparation of its data is.

    Raises:
        RecordError: if there is no such trial, or it has to be trained again and that is not
            possible or gives something else.
        StoreError: if the tracking store cannot be used.
    """
    home = home or Home.at()
    record = Record(home.tracking_uri)
    trial = record.trial(run) if run else record.best(record.search(search))
    kept = kept_trial(record, trial, home)
    if kept is not None:
        return kept
    if trial.status == "diverged":
        raise RecordError(
            f"trial {trial.number} of {trial.search} diverged: its weights are no numbers; take "
            f"another trial ('tuner show --search {trial.search}')"
        )
    with TemporaryDirectory() as folder:
        path, note = _retrained(trial, home, Path(folder), on_report, on_progress)
        return replace(_read(record, trial, home, path, "retrained"), note=note)


def kept_trial(record: Record, trial: TrialRecord, home: Home) -> TrainedTrial | None:
    """The same if its weights, or those of an equal trial, are kept; else None.

    Raises:
        RecordError: if what is kept is damaged, or its tokenizer is not recorded.
        StoreError: if the tracking store cannot be used.
    """
    with TemporaryDirectory() as folder:
        path = kept_state(record, trial, folder)
        return None if path is None else _read(record, trial, home, path, "kept")


def _read(
    record: Record,
    trial: TrialRecord,
    home: Home,
    path: Path,
    origin: Literal["kept", "retrained"],
) -> TrainedTrial:
    """A trial whose state is a file."""
    spec, parent = record.spec(trial), record.search(trial.search)
    tokenizer = load_tokenizer(recorded_tokenizer(record, parent, spec.tokenizer_fingerprint, home))
    assert tokenizer is not None
    try:
        source = WarmStartSource.read(path)
    except CheckpointError as error:
        raise RecordError(
            f"the recorded weights of trial {trial.number} of {trial.search} cannot be used: "
            f"{str(error).replace(str(path), path.name)}; delete {STATE_FILE} of its run "
            f"{trial.run_id[:_SHOWN_LETTERS]}, and they are trained again"
        ) from error
    _, tensors = source.tensors_for(optimizer_state=False)
    weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items()}
    return TrainedTrial(trial, spec, source.step, weights, tokenizer, origin)


def _retrained(
    trial: TrialRecord,
    home: Home,
    folder: Path,
    on_report: Callable[[int, int, Report], None] | None,
    on_progress: OnProgress,
) -> tuple[Path, str]:
    """A trial is trained again: its state, as a file in a folder, and what to note of it."""
    result = replay(
        trial.run_id, home=home, on_report=on_report, on_progress=on_progress, states=folder
    )
    if result.verdict is Verdict.DIFFERENT:
        raise RecordError(
            f"the weights of trial {trial.number} of {trial.search} were not kept, and training it "
            f"again gives others: {result.sentence}"
        )
    if result.state is None:
        raise RecordError(
            f"the weights of trial {trial.number} of {trial.search} could not be saved in "
            f"{folder}; free some space there"
        )
    is_exact = result.verdict is Verdict.BIT_EXACT
    return result.state, "" if is_exact else f"trained again, {result.sentence}"
