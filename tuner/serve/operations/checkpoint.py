"""The process that fetches the kept checkpoint of a trial: no command of tuner does that alone."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from model.errors import ModelError
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.home.private_folder import private_folder
from tuner.trained.kept_checkpoint import kept_checkpoint
from tuner.trained.recorded_trials import RecordedTrials


def fetch(home: Home, search: str, folder: Path, trial: int | None = None) -> Path:
    """Copy the checkpoint of a trial into a folder; return its path.

    Args:
        home: home of the search.
        search: name of the search.
        folder: the folder.
        trial: number of the trial; None for the best one.

    Raises:
        RecordError: if there is no such trial, or its weights were not kept.
        StoreError: if the tracking store cannot be used.
    """
    trials = RecordedTrials.of(home)
    found = trials.find(None if trial is None else f"{search}/{trial}", search)
    with private_folder() as temporary:
        path = kept_checkpoint(trials, found, str(temporary))
        if path is None:
            raise RecordError(
                f"the weights of trial {found.record.number} of {search} were not kept "
                f"(search.keep); an export trains it again"
            )
        target = folder / f"{search}-{found.record.number}.safetensors"
        shutil.copyfile(path, target)
    return target


def main(root: str, search: str, folder: str, trial: str = "") -> int:
    """Fetch a checkpoint as the arguments say; return the exit status."""
    try:
        path = fetch(Home.recorded(root), search, Path(folder), int(trial) if trial else None)
    except (TunerError, ModelError) as error:
        sys.stderr.write(f"{error}\n")
        return TunerError.exit_status
    sys.stdout.write(json.dumps({"search": search, "file": path.name}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
