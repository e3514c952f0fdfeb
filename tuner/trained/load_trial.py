"""Loads a trained trial: its weights are kept, or trained again from its specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from torch import Tensor

from model.checkpoints.warm_start import WarmStartSource, read_start
from model.errors import CheckpointError
from model.network.encoder_decoder import TransformerPair
from model.network.lora import merge
from model.network.transformer import TransformerLM
from model.progress import OnProgress, silent
from model.spec.trial import TrialSpec
from model.tokenizer.load import load_tokenizer
from model.tokenizer.tokenizer import Tokenizer
from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.texts.formatting import short_run
from tuner.tracking.artifacts import bring_start, recorded_tokenizer
from tuner.tracking.records import TrialRecord
from tuner.tracking.tags import CHECKPOINT_FILE
from tuner.trained.kept_checkpoint import kept_checkpoint
from tuner.trained.recorded_trials import RecordedTrial, RecordedTrials
from tuner.trained.replay import OnReport, Verdict, replay


@dataclass(frozen=True, repr=False)
class TrainedTrial:
    """A trial with its trained weights.

    Attributes:
        trial: the recorded trial.
        spec: its specification.
        step: number of updates.
        weights: weights of the last val_loss, by the names of `model.parameter_shapes`; float32,
            on the CPU.
        tokenizer: the tokenizer of the training.
        origin: `kept` with the record, or `retrained` from the specification.
        note: difference between retrained and recorded reports; empty if they are bit-exact.
        adapters: LoRA's matrices by the names of `model.adapter_shapes`, which `weights` has in it;
            None without LoRA.
    """

    trial: TrialRecord
    spec: TrialSpec
    step: int
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    origin: Literal["kept", "retrained"]
    note: str = ""
    adapters: Mapping[str, Tensor] | None = None

    def model(self) -> TransformerLM | TransformerPair:
        """Return a torch module with these weights, K = 1; a pair for an encoder–decoder."""
        a = self.spec.architecture
        module = TransformerPair if a.n_encoder_layers else TransformerLM
        return module.of(a, self.weights)

    def __repr__(self) -> str:
        trial = self.trial
        return (
            f"<trial {trial.number} of {trial.search}, {trial.status}: run "
            f"{short_run(trial.run_id)}, {self.step} updates, weights {self.origin}>"
        )


def load_trial(
    run: str | None = None,
    *,
    search: str | None = None,
    home: Home | None = None,
    on_report: OnReport | None = None,
    on_progress: OnProgress = silent,
) -> TrainedTrial:
    """Load a recorded trial with its weights.

    The weights of the best trials of a search are kept (`search.keep`). Any other trial is trained
    again from its specification, and its reports are compared with the recorded ones.

    Args:
        run: MLflow run of the trial, or its first eight or more letters; by default the best trial
            of the search.
        search: name of the search; by default the newest.
        home: home of the searches; by default ./runs.
        on_report: called with the number of each report of a retraining, their count, and the
            report.
        on_progress: called with the progress of the preparation of the data.

    Raises:
        RecordError: if there is no such trial, or it must be trained again and this fails or gives
            different reports.
        JournalError: if the journal was edited or damaged.
        StoreError: if the tracking store cannot be used.
    """
    trials = RecordedTrials.of(home or Home.recorded())
    trial = trials.find(run, search)
    trained = kept_trial(trials, trial)
    if trained is not None:
        return trained
    about = trial.record
    if about.status == "diverged":
        raise RecordError(
            f"trial {about.number} of {about.search} diverged: its weights are not finite; choose "
            f"another trial ('tuner show --search {about.search}')"
        )
    with TemporaryDirectory() as folder:
        path, note = _retrained(about, trials.home, Path(folder), on_report, on_progress)
        return replace(_read(trials, trial, path, "retrained"), note=note)


def kept_trial(trials: RecordedTrials, trial: RecordedTrial) -> TrainedTrial | None:
    """Load a trial whose weights, or those of an equal trial, are kept; else return None.

    Raises:
        RecordError: if the checkpoint is damaged, or its tokenizer is not recorded.
        StoreError: if the tracking store cannot be used.
    """
    with TemporaryDirectory() as folder:
        path = kept_checkpoint(trials, trial, folder)
        return None if path is None else _read(trials, trial, path, "kept")


def _read(
    trials: RecordedTrials, trial: RecordedTrial, path: Path, origin: Literal["kept", "retrained"]
) -> TrainedTrial:
    """Read a trial from its checkpoint file."""
    spec, about = trial.spec, trial.record
    fingerprint = spec.tokenizer_fingerprint
    config = recorded_tokenizer(trials.record, trial.search, fingerprint, trials.home)
    tokenizer = load_tokenizer(config)
    assert tokenizer is not None
    try:
        source = WarmStartSource.read(path)
        _, tensors = source.tensors_for(optimizer_state=False)
        if source.spec.hash != spec.hash:
            raise CheckpointError("the checkpoint is of another trial")
    except CheckpointError as error:
        raise RecordError(
            f"the recorded weights of trial {about.number} of {about.search} cannot be used: "
            f"{str(error).replace(str(path), path.name)}; delete {CHECKPOINT_FILE} of its run "
            f"{short_run(about.run_id)}, and the trial is trained again"
        ) from error
    weights, adapters = _without_kind(tensors), None
    if spec.architecture.lora_rank:
        assert spec.init_from is not None
        bring_start(trials.record, trial.search, spec.init_from, trials.home)
        base = _without_kind(read_start(trials.home.starts, spec.init_from))
        weights, adapters = merge(base, weights, spec.lora_scale), weights
    return TrainedTrial(about, spec, source.step, weights, tokenizer, origin, adapters=adapters)


def _without_kind(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("weights."): tensor for name, tensor in tensors.items()}


def _retrained(
    trial: TrialRecord,
    home: Home,
    folder: Path,
    on_report: OnReport | None,
    on_progress: OnProgress,
) -> tuple[Path, str]:
    """Train a trial again; return its checkpoint in a folder, and the note on differences."""
    result = replay(
        trial.run_id, home=home, on_report=on_report, on_progress=on_progress, states=folder
    )
    if result.verdict is Verdict.DIFFERENT:
        raise RecordError(
            f"the weights of trial {trial.number} of {trial.search} were not kept, and training it "
            f"again gives different ones: {result.sentence}"
        )
    if result.state is None:
        raise RecordError(
            f"the weights of trial {trial.number} of {trial.search} could not be saved in "
            f"{folder}; free some space there"
        )
    is_exact = result.verdict is Verdict.BIT_EXACT
    return result.state, "" if is_exact else f"trained again, {result.sentence}"
