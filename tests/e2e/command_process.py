"""Commands run in one process that lives as long as the tests, as searches do in a notebook.

A new process imports MLflow for every command: 3 to 5 s of a core, for an answer of 0.2 s; a search
imports torch and scikit-learn as well. In the shared process searches train in threads
(`threads_for_ray`). Tests of what a fresh process does (the search of most tests, signals, a
cluster, the replay of the README, start-up) start one of their own, whose searches run on Ray.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.e2e.threads_for_ray import threads_for_ray

SECONDS = 300
# start another process, or serve until Ctrl-C
OWN_PROCESS = ("submit", "doctor", "ui")


@dataclass(frozen=True)
class Run:
    """A finished command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


@cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def plain_environment() -> dict[str, str]:
    """The environment of a user, without what other tests made of it."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW", "TUNER"))}


def run_command(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float = SECONDS
) -> Run:
    """Run `tuner` with some arguments in the shared process."""
    call = _process().submit(_tuner, list(arguments), folder, dict(environment))
    return call.result(seconds)


def run_program(
    program: str, page: str, folder: Path, environment: Mapping[str, str], seconds: float = SECONDS
) -> Run:
    """Run a Python program in the shared process; `page` is its name in tracebacks."""
    call = _process().submit(_python, program, page, folder, dict(environment))
    return call.result(seconds)


@contextlib.contextmanager
def _settled(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Any, Any]]:
    """In a folder, with an environment, and with what is printed caught."""
    out, err = io.StringIO(), io.StringIO()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def _tuner(arguments: list[str], folder: Path, environment: dict[str, str]) -> Run:
    from tuner.cli import main

    searches = arguments[0] in ("search", "transfer")
    workers = threads_for_ray() if searches else contextlib.nullcontext()
    with workers, _settled(folder, environment) as (out, err):
        try:
            status = main(arguments)
        except SystemExit as error:  # argparse
            status = int(error.code or 0)
        except Exception:  # noqa: BLE001 - a user would see it
            status = 1
            traceback.print_exc()
    return Run(status, out.getvalue(), err.getvalue())


def _python(program: str, page: str, folder: Path, environment: dict[str, str]) -> Run:
    status = 0
    with threads_for_ray(), _settled(folder, environment) as (out, err):
        try:
            exec(compile(program, page, "exec"), {"__name__": "__main__"})
        except Exception:  # noqa: BLE001 - for the same reason
            status = 1
            traceback.print_exc()
    return Run(status, out.getvalue(), err.getvalue())
