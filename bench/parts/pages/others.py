"""The trials of a search in MLflow's page and in Optuna's dashboard, for the same look."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from parts.pages.watched_page import Watched, watch
from tuner.conductor.trial import Trial
from tuner.home.home import Home
from tuner.journal.journal import read_search

NOTES = [
    "In SQLite, the others have number, outcome, searched values and curve of each trial, in the "
    "form in which their own clients write them. MLflow draws the curves of the 10 newest trials, "
    "and lists 100; Optuna's dashboard draws all of them.",
]
_MLFLOW = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
_DRAWN = "() => document.querySelectorAll('.js-plotly-plot .trace').length > 0"
_START_SECONDS = 120.0


def measure(
    browser: Browser, home: Home, folder: Path, packages: Path, size: Mapping[str, int]
) -> dict[str, Watched]:
    """Return what was seen of the pages of others.

    Args:
        browser: the browser.
        home: home of the search `long`.
        folder: empty folder for their databases.
        packages: folder with optuna-dashboard.
        size: size of the bench.
    """
    search = read_search(home.search("long"))
    assert search is not None
    trials = [trial for trial in search.board.trials.values() if trial.reports]
    seen = {}
    stores = {"MLflow": _mlflow(folder, trials), "Optuna": _optuna(folder, trials)}
    for name, (command, page) in stores.items():
        port = free_port()
        paths = {"PYTHONPATH": str(packages)} if name == "Optuna" else _MLFLOW
        with server([*command, "--port", str(port)], paths, port):
            url = f"http://127.0.0.1:{port}/{page}"
            seen[name] = watch(browser, url, _DRAWN, size["seconds"])
    return seen


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def server(command: Sequence[str], environment: Mapping[str, str], port: int) -> Iterator[None]:
    """A server in a process of its own, from the moment when it listens."""
    quiet = subprocess.DEVNULL
    environment = {**os.environ, **environment}
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet) as process:
        try:
            until = time.monotonic() + _START_SECONDS
            while process.poll() is None and time.monotonic() < until:
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/"):
                    break
                time.sleep(0.2)
            yield
        finally:
            process.terminate()


def _inserted(uri: str, rows: Mapping[Any, Iterator[dict[str, Any]]]) -> None:
    """Insert rows into tables, as model of SQLAlchemy → rows."""
    from sqlalchemy import create_engine, insert

    engine = create_engine(uri)
    with engine.begin() as connection:
        for model, those in rows.items():
            while some := list(islice(those, 50_000)):
                connection.execute(insert(model), some)
    engine.dispose()


def _curve(trial: Trial) -> Iterator[tuple[int, float, int]]:
    """Yield step, value and time of each report whose value is finite."""
    for report, at in zip(trial.reports, trial.times, strict=True):
        if math.isfinite(report.val_loss):
            yield report.step, report.val_loss, at


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000)


# MLflow -------------------------------------------------------------------------------------------


def _mlflow(folder: Path, trials: Sequence[Trial]) -> tuple[list[str], str]:
    """Write trials as runs; return the command of the server, and the page with their curves."""
    from mlflow.store.tracking.dbmodels.models import (
        SqlLatestMetric,
        SqlMetric,
        SqlParam,
        SqlRun,
        SqlTag,
    )
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment = SqlAlchemyStore(uri, str(folder / "artifacts")).create_experiment("long")
    own = {trial.number: f"{trial.number:032x}" for trial in trials}

    def metric(trial: Trial, step: int, value: float, at: int) -> dict[str, Any]:
        return {
            "key": "val_loss", "value": value, "timestamp": at, "step": step, "is_nan": False,
            "run_uuid": own[trial.number],
        }  # fmt: skip

    runs = (
        {
            "run_uuid": own[t.number], "name": f"trial {t.number}", "source_type": "LOCAL",
            "source_name": "tuner", "entry_point_name": "", "user_id": "bench",
            "status": "FINISHED" if t.outcome else "RUNNING", "start_time": t.times[0],
            "end_time": t.times[-1], "source_version": "", "lifecycle_stage": "active",
            "artifact_uri": f"{folder}/artifacts/{t.number}", "experiment_id": int(experiment),
        }
        for t in trials
    )  # fmt: skip
    _inserted(uri, {
        SqlRun: runs,
        SqlParam: (
            {"key": name, "value": str(value), "run_uuid": own[t.number]}
            for t in trials for name, value in t.draw.items()
        ),
        SqlTag: (
            {"key": f"mlflow.{key}", "value": value, "run_uuid": own[t.number]}
            for t in trials
            for key, value in (("runName", f"trial {t.number}"), ("user", "bench"))
        ),
        SqlMetric: (metric(t, *point) for t in trials for point in _curve(t)),
        SqlLatestMetric: (metric(t, *[*_curve(t)][-1]) for t in trials),
    })  # fmt: skip
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1",
        "--backend-store-uri", uri,
    ]  # fmt: skip
    return (
        command,
        f"#/experiments/{experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning",
    )


# Optuna -------------------------------------------------------------------------------------------


def _optuna(folder: Path, trials: Sequence[Trial]) -> tuple[list[str], str]:
    """Write trials as a study; return the command of the dashboard, and the page of the study."""
    import optuna
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        distribution_to_json,
    )
    from optuna.storages._rdb import models

    uri = f"sqlite:///{folder / 'optuna.db'}"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(storage=uri, study_name="long")
    values: dict[str, set[Any]] = {}
    for trial in trials:
        for name, value in trial.draw.items():
            values.setdefault(name, set()).add(value)
    kinds = {
        name: FloatDistribution(min(those), max(those)) if len(those) > 8
        else CategoricalDistribution(sorted(those))
        for name, those in values.items()
    }  # fmt: skip
    texts = {name: distribution_to_json(kind) for name, kind in kinds.items()}
    point = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    final = models.TrialValueModel.TrialValueType.FINITE
    states = optuna.trial.TrialState
    _inserted(uri, {
        models.TrialModel: (
            {
                "trial_id": t.number + 1, "number": t.number, "study_id": 1,
                "state": states.COMPLETE if t.outcome else states.RUNNING,
                "datetime_start": _moment(t.times[0]),
                "datetime_complete": _moment(t.times[-1]) if t.outcome else None,
            }
            for t in trials
        ),
        models.TrialParamModel: (
            {
                "trial_id": t.number + 1, "param_name": name,
                "param_value": kinds[name].to_internal_repr(value),
                "distribution_json": texts[name],
            }
            for t in trials for name, value in t.draw.items()
        ),
        models.TrialIntermediateValueModel: (
            {
                "trial_id": t.number + 1, "step": step, "intermediate_value": value,
                "intermediate_value_type": point,
            }
            for t in trials for step, value, _ in _curve(t)
        ),
        models.TrialValueModel: (
            {
                "trial_id": t.number + 1, "objective": 0, "value": t.reports[-1].val_loss,
                "value_type": final,
            }
            for t in trials if t.outcome
        ),
    })  # fmt: skip
    code = "from optuna_dashboard._cli import main; main()"
    return [sys.executable, "-c", code, uri, "--host", "127.0.0.1"], "dashboard/studies/1"
