"""Store of the trials' checkpoints: a folder for each trial, a file for each report.

    {folder}/{trial_id}/{step:09d}.safetensors

A damaged file (cut short, a flipped bit) is skipped, and the one before it is used.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from model.checkpoints import checkpoint
from model.errors import CheckpointError

_SUFFIX = ".safetensors"


class CheckpointRef(NamedTuple):
    """Reference to the newest readable checkpoint of a trial at or before an update.

    Attributes:
        trial_id: id of the trial.
        step: the update.
    """

    trial_id: str
    step: int


class SavedState(NamedTuple):
    """State of a trial, as read from a checkpoint.

    Attributes:
        tensors: tensors for `Stack.load`.
        spec_hash: hash of the specification that was in training.
        step: updates done.
        val_losses: validation losses of the reports so far.
        spec: the specification as JSON, unchecked; empty if the file has none.
    """

    tensors: dict[str, Tensor]
    spec_hash: str
    step: int
    val_losses: list[float]
    spec: Mapping[str, Any]


def checkpoint_path(folder: Path, trial_id: str, step: int) -> Path:
    """Return the path of a trial's checkpoint after an update."""
    return folder / trial_id / f"{step:09d}{_SUFFIX}"


def read(path: Path) -> SavedState:
    """Read a checkpoint of a trial.

    Raises:
        CheckpointError: if the file cannot be read, is damaged, or is not of a trial.
    """
    tensors, metadata = checkpoint.read(path)
    try:
        losses = [float(loss) for loss in metadata["val_losses"]]
        spec = metadata.get("spec")
        return SavedState(
            tensors, str(metadata["spec_hash"]), int(metadata["step"]), losses,
            spec if isinstance(spec, dict) else {},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} is a checkpoint, but not of a trial") from error


def read_newest(
    folder: Path, ref: CheckpointRef, fits: Callable[[SavedState], bool] = lambda state: True
) -> SavedState | None:
    """Read the newest checkpoint of a reference that is undamaged and fits.

    Args:
        folder: folder of the store.
        ref: trial and last update.
        fits: True for a state that the caller can use.

    Returns:
        The state; None if there is none.
    """
    for step in reversed(_steps(folder / ref.trial_id)):
        if step <= ref.step:
            with contextlib.suppress(CheckpointError):
                state = read(checkpoint_path(folder, ref.trial_id, step))
                if state.step == step and fits(state):
                    return state
    return None


def prune(folder: Path, ref: CheckpointRef, needed: Collection[int] = ()) -> None:
    """Delete the checkpoints of a trial that are older than the one before an update.

    Two remain up to the update, so that damage to the newest one does not lose the trial.

    Args:
        folder: folder of the store.
        ref: trial and update.
        needed: updates whose checkpoints remain, because other trials have yet to start from them.
    """
    for step in [step for step in _steps(folder / ref.trial_id) if step < ref.step][:-1]:
        if step not in needed:
            checkpoint_path(folder, ref.trial_id, step).unlink(missing_ok=True)


def delete(folder: Path, trial_id: str) -> None:
    """Delete all checkpoints of a trial."""
    shutil.rmtree(folder / trial_id, ignore_errors=True)


def delete_partial_files(folder: Path, trial_id: str) -> None:
    """Delete the temporary files that a killed process left; no write may be pending."""
    for path in (folder / trial_id).glob(f".*{_SUFFIX}.*"):
        path.unlink(missing_ok=True)


def _steps(folder: Path) -> list[int]:
    """Return the updates of the checkpoints in a trial's folder, in rising order."""
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    return sorted(int(name) for name in names if name.isdecimal())
