"""Optuna's pool with transformers, PEFT: `python -m parts.lora.pool FOLDER SIZE TICKS PROCESSES`.

Trains the trials of `parts.lora.search` with the same numbers: a study in shared storage, and
processes that train one trial after the other. Each trial loads the base, as examples of both
packages do, reads equally many tokens, and is evaluated on all held-out sequences. Prints the
losses as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import warnings
from pathlib import Path
from typing import Any

STUDY, FILE = "lora", "study.log"


def study_of(folder: Path) -> Any:
    """Open the study."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(folder / FILE)))
    return optuna.create_study(study_name=STUDY, storage=storage, load_if_exists=True)


def train(job: tuple[Path, str, int]) -> None:
    """Train one trial of the study in a process of the pool."""
    import numpy as np
    import torch

    from parts.lora.setting import SIZES, WARM_UP
    from parts.lora.theirs import adapted, rows_at, update

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder, size, ticks = job
    study = study_of(folder)
    trial = study.ask()
    rate = trial.suggest_float("rate", 1e-4, 1e-2, log=True)
    alpha = trial.suggest_float("alpha", 8, 64, log=True)
    model, batch = SIZES[size]
    length = model["context_length"]
    network, optimizer = adapted(folder, rate, alpha)
    parts = (np.load(folder / f"{part}.npy").astype(np.int64) for part in ("train", "validation"))
    tokens, held_out = map(torch.from_numpy, parts)
    draw = np.random.default_rng(trial.number)
    for _ in range(WARM_UP + ticks):
        at = draw.integers((len(tokens) - 1) // length, size=batch) * length
        update(network, optimizer, rows_at(tokens, at, length))
    network.eval()
    places = range(0, len(held_out) - length, length)
    with torch.inference_mode():
        losses = [_loss(network, rows_at(held_out, [place], length)) for place in places]
    study.tell(trial, sum(losses) / len(losses))


def _loss(network: Any, rows: Any) -> float:
    import torch

    logits = network(input_ids=rows[:, :-1], use_cache=False).logits
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))


def main(folder: Path, size: str, ticks: int, processes: int) -> dict[str, Any]:
    """Train all trials, and return their losses."""
    (folder / FILE).unlink(missing_ok=True)
    study = study_of(folder)
    trials = json.loads((folder / "trials.json").read_text())
    for each in trials:
        study.enqueue_trial({"rate": each["rate"], "alpha": each["alpha"]})
    context = multiprocessing.get_context("spawn")  # what torch asks for
    with context.Pool(processes) as pool:
        for _ in pool.imap_unordered(train, [(folder, size, ticks)] * len(trials)):
            pass
    return {"losses": [trial.value for trial in study.trials]}


if __name__ == "__main__":
    _, at, name, length, number = sys.argv
    sys.stdout.write(json.dumps(main(Path(at), name, int(length), int(number))) + "\n")
