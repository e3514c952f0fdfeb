"""The saved states of trials: a folder for each trial, a checkpoint for each report.

    {folder}/{trial_id}/{step:09d}.safetensors

A damaged checkpoint (cut short, a bit flipped) is passed over, and the one before it is used.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from model.checkpoints import checkpoint
from model.errors import CheckpointError

_SUFFIX = ".safetensors"


class CheckpointRef(NamedTuple):
    """A trial's state after an update: the newest one that can be read, at most of that update."""

    trial_id: str
    step: int


class SavedState(NamedTuple):
    """What a checkpoint of a trial holds.

    Attributes:
        tensors: what `Stack.load` takes.
        spec_hash: of the specification that was in training.
        step: updates done.
        val_losses: of the reports so far.
    """

    tensors: dict[str, Tensor]
    spec_hash: str
    step: int
    val_losses: list[float]


def path_of(folder: Path, trial_id: str, step: int) -> Path:
    """Where the state of a trial after an update lies."""
    return folder / trial_id / f"{step:09d}{_SUFFIX}"


def read(path: Path) -> SavedState:
    """The state in a checkpoint.

    Raises:
        CheckpointError: if it cannot be read, is damaged or is of no trial.
    """
    tensors, about = checkpoint.read(path)
    try:
        return SavedState(tensors, about["spec_hash"], about["step"], about["val_losses"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is a checkpoint, but not of a trial") from error


def newest(
    folder: Path, at: CheckpointRef, fits: Callable[[SavedState], bool] = lambda state: True
) -> SavedState | None:
    """The newest state of a trial, at most of some update, that can be read and fits.

    Args:
        folder: where states are saved.
        at: which trial, and the update.
        fits: what else it must be.

    Returns:
        None if there is none.
    """
    for step in reversed(_steps(folder / at.trial_id)):
        if step <= at.step:
            with contextlib.suppress(CheckpointError):
                state = read(path_of(folder, at.trial_id, step))
                if state.step == step and fits(state):
                    return state
    return None


def drop_before(folder: Path, at: CheckpointRef) -> None:
    """Delete the older states of a trial than the one before an update's.

    Two remain, so that damage to the newest one does not cost all.
    """
    for step in [step for step in _steps(folder / at.trial_id) if step < at.step][:-1]:
        path_of(folder, at.trial_id, step).unlink(missing_ok=True)


def drop(folder: Path, trial_id: str) -> None:
    """Delete all states of a trial."""
    shutil.rmtree(folder / trial_id, ignore_errors=True)


def tidy(folder: Path, trial_id: str) -> None:
    """Delete what a kill between writing and renaming has left; only while the trial rests."""
    for path in (folder / trial_id).glob(f".*{_SUFFIX}.*"):
        path.unlink(missing_ok=True)


def _steps(folder: Path) -> list[int]:
    """Updates after which states were saved, in rising order."""
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    return sorted(int(name) for name in names if name.isdecimal())
