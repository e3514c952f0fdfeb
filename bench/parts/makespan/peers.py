"""The search of makespan.py by Ray Tune and by Optuna, beside ours.

    python -m parts.makespan.peers SIDE SETUP.json       one search, for bench/makespan.py

Every side but the last trains with our engine, one slot wide, and all read the prepared corpus from
disk. The sides follow the documentation of their tools:

    ray           Ray Tune: a function that calls `tune.report`, ASHAScheduler, OptunaSearch with
                  TPE; one processor for each trial, and on a GPU a fraction of it
    optuna-pool   Optuna: a study in shared storage, TPE and SuccessiveHalvingPruner, a pool of
                  processes that train one trial after the other
    optuna-plain  as optuna-pool, with a training loop of torch's own parts (plain.py)

Prints one JSON object as the last line of standard output.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ETA = 3  # reduction factor, as ours by default
Values = Mapping[str, Any]  # name of a parameter → value


@dataclass(frozen=True)
class Setup:
    """Settings of the search of a side.

    Attributes:
        space: search-space file.
        overrides: replacements of its entries, such as `budget.tokens=…`.
        corpus: folder of the prepared corpus.
        folder: folder of logs and of the side's own files.
        trials: number of trials.
        concurrent: number of trials at one time.
        device: "cpu" or "cuda".
        plain: True to train with a plain loop, not with our engine.
    """

    space: str
    overrides: list[str]
    corpus: str
    folder: str
    trials: int
    concurrent: int
    device: str
    plain: bool = False


def space_of(setup: Setup) -> Any:
    """Read the search space with its overrides."""
    from tuner.space_file.load import read_space
    from tuner.space_file.overrides import Override

    return read_space(setup.space, [Override.parse(text) for text in setup.overrides])[0]


def train(setup: Setup, values: Values, report: Callable[[float, int], None]) -> None:
    """Train one trial; `report` takes validation loss and tokens, and may raise to stop it."""
    from model.corpus.corpus import load
    from tuner.space.data_facts import DataFacts

    space = space_of(setup)
    corpus = load(Path(setup.corpus), space.data, space.tokenizer)
    assert corpus is not None
    draw = {parameter.label: values[parameter.name] for parameter in space.searched}
    spec = space.spec(draw, DataFacts.of(corpus), space.search.seed)
    path = Path(setup.folder, f"{os.getpid()}-{uuid.uuid4().hex[:8]}.trained")
    with path.open("w") as file:

        def log(seconds: float, tokens: int) -> None:
            file.write(f"{time.time()} {seconds} {tokens}\n")
            file.flush()

        if setup.plain:
            from parts.makespan.plain import PlainTrial

            PlainTrial(spec, corpus, setup.device).run(log, report)
        else:
            _train_with_engine(spec, corpus, setup.device, log, report)


def _train_with_engine(
    spec: Any,
    corpus: Any,
    device: str,
    log: Callable[[float, int], None],
    report: Callable[[float, int], None],
) -> None:
    from model.engine.engine import Engine

    engine = Engine(*corpus.splits, slots=1, device=device)
    engine.add_trial("0", spec)
    while engine.num_pending:
        reports = engine.step()
        log(engine.training_seconds, engine.tokens)
        for r in reports:
            report(r.val_loss if math.isfinite(r.val_loss) else math.inf, r.tokens)


def distributions(space: Any) -> dict[str, Any]:
    """Return the searched parameters as Optuna's distributions."""
    from tuner.samplers.optuna_sampler import distribution_of

    return {parameter.name: distribution_of(parameter) for parameter in space.searched}


def defaults(space: Any) -> dict[str, Any]:
    """Return the defaults, the first trial of all sides."""
    draw = space.defaults()
    return {parameter.name: draw[parameter.label] for parameter in space.searched}


def sampler(seed: int) -> Any:
    """Return TPE with our settings."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


# Ray Tune ---------------------------------------------------------------------------------------


def by_ray(setup: Setup) -> dict[str, Any]:
    """Search with Ray Tune."""
    import logging

    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict[str, Any]) -> None:
        from parts.makespan.peers import train

        train(setup, config, lambda loss, tokens: tune.report({"val_loss": loss, "tokens": tokens}))

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
    )
    space = space_of(setup)
    resources = {"cpu": 1.0}
    if setup.device == "cuda":
        resources["gpu"] = 1 / setup.concurrent
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            metric="val_loss",
            mode="min",
            num_samples=setup.trials,
            max_concurrent_trials=setup.concurrent,
            reuse_actors=False,
            search_alg=OptunaSearch(
                distributions(space),
                metric="val_loss",
                mode="min",
                sampler=sampler(space.search.seed),
                points_to_evaluate=[defaults(space)],
            ),
            scheduler=ASHAScheduler(
                max_t=space.budget.reports, grace_period=1, reduction_factor=ETA
            ),
        ),
        run_config=tune.RunConfig(storage_path=setup.folder, name="tune", verbose=0),
    )
    results = tuner.fit()
    errors = [str(error) for error in results.errors]
    if errors:
        raise SystemExit(f"{len(errors)} trials of Ray Tune failed: {errors[0]}")
    rows = []
    for result in (results[i] for i in range(len(results))):
        history = [float(loss) for loss in result.metrics_dataframe["val_loss"]]
        rows.append((result.config, history, int(result.metrics["tokens"])))
    ray.shutdown()
    return summary(space, rows)


# Optuna -----------------------------------------------------------------------------------------


def _study(setup: Setup, seed: int) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="makespan",
        storage=JournalStorage(JournalFileBackend(str(Path(setup.folder, "study.log")))),
        sampler=sampler(seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA),
        load_if_exists=True,
    )


def _one_trial(job: tuple[Setup, int]) -> None:
    """Train one trial of the study in a process of the pool."""
    import warnings

    import optuna

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    setup, number = job
    space = space_of(setup)
    study = _study(setup, space.search.seed + number)  # equal seeds would suggest equal trials
    trial = study.ask(distributions(space))
    losses: list[float] = []

    def report(loss: float, tokens: int) -> None:
        losses.append(loss)
        trial.set_user_attr("tokens", tokens)
        trial.report(loss, len(losses))
        if len(losses) < space.budget.reports and trial.should_prune():
            raise optuna.TrialPruned

    try:
        train(setup, trial.params, report)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, losses[-1])


def by_optuna(setup: Setup) -> dict[str, Any]:
    """Search with Optuna."""
    import warnings

    import optuna

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    space = space_of(setup)
    study = _study(setup, space.search.seed)
    study.enqueue_trial(defaults(space))
    context = multiprocessing.get_context("spawn")  # what torch asks for
    jobs = [(setup, number) for number in range(setup.trials)]
    with context.Pool(setup.concurrent) as pool:
        for _ in pool.imap_unordered(_one_trial, jobs):
            pass
    rows = []
    for trial in study.trials:
        history = [loss for _, loss in sorted(trial.intermediate_values.items())]
        rows.append((trial.params, history, int(trial.user_attrs["tokens"])))
    return summary(space, rows)


# both -------------------------------------------------------------------------------------------


def summary(space: Any, rows: list[tuple[Values, list[float], int]]) -> dict[str, Any]:
    """Summarize a search, given values, losses and tokens of each trial."""
    first = defaults(space)
    complete = [history[-1] for _, history, _ in rows if len(history) == space.budget.reports]
    return {
        "trials": len(rows),
        "complete": len(complete),
        "best": min(complete),
        "reported_tokens": sum(tokens for _, _, tokens in rows),
        "defaults": next(
            h[0] for values, h, _ in rows if all(values[n] == first[n] for n in first)
        ),
    }


SIDES: Mapping[str, Callable[[Setup], dict[str, Any]]] = {
    "ray": by_ray,
    "optuna-pool": by_optuna,
    "optuna-plain": lambda setup: by_optuna(replace(setup, plain=True)),
}


def main() -> int:
    """Run one search of one side."""
    side, path = sys.argv[1:]
    outcome = SIDES[side](Setup(**json.loads(Path(path).read_text())))
    print(json.dumps(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
